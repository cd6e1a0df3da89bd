# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The control API: who may speak, what is refused and how, and that what it changes is in force at the gate."""
import json
import pathlib
import re
import socket
import time

import pytest

from netns import wait_until
from tokens import Token
from world import SHOP, World, rfc3339, seconds_of

HERE = pathlib.Path(__file__).resolve().parent
REASONS_H = HERE.parents[1] / "include" / "sluice" / "reasons.h"


def secret(world):
    return (world.state_dir / "control.secret").read_text(encoding="ascii").strip()


def assert_problem(reply, status, code, field=None):
    assert reply.status == status, reply
    assert reply.headers["Content-Type"].startswith("application/problem+json"), reply.headers
    problem = reply.json()
    assert problem["status"] == status and problem["code"] == code, problem
    assert problem["title"] and problem["detail"], problem
    if field:
        assert problem["field"] == field, problem


# --- who may speak ---------------------------------------------------------------------------------------------------------
def test_tcp_needs_the_secret_and_the_unix_socket_does_not(world):
    assert world.control("GET", "/v1/status").status == 200
    assert_problem(world.control_tcp("GET", "/v1/status"), 401, "no_secret")
    good = {"Authorization": f"Bearer {secret(world)}"}
    assert world.control_tcp("GET", "/v1/status", headers=good).status == 200


@pytest.mark.parametrize("spoil", [lambda s: s[:-1] + ("0" if s[-1] != "0" else "1"), lambda s: s + "0", lambda s: s[:-1],
                                   lambda s: "", lambda s: s.upper() + "x"], ids=["last", "longer", "shorter", "empty", "case"])
def test_a_wrong_secret_is_401_and_changes_nothing(world, spoil):
    headers = {"Authorization": "Bearer " + spoil(secret(world))}
    reply = world.control_tcp("PUT", "/v1/lists/deny/192.0.2.99", headers=headers)
    assert_problem(reply, 401, "wrong_secret")
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    assert "192.0.2.99/32" not in str(world.ask("GET", "/v1/lists/deny"))


def test_another_scheme_is_no_secret(world):
    for value in (f"Basic {secret(world)}", secret(world)):
        assert_problem(world.control_tcp("GET", "/v1/status", headers={"Authorization": value}), 401, "wrong_secret")


def test_the_secret_is_for_its_owner_only_and_stays_over_a_restart(world):
    path = world.state_dir / "control.secret"
    before = secret(world)
    assert path.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}", before)
    assert world.daemon.terminate() == 0
    world.start_daemon()
    assert secret(world) == before
    keys = [file for file in world.state_dir.iterdir() if "key" in file.name]
    assert keys and all(file.stat().st_mode & 0o777 == 0o600 for file in keys)


def test_no_secret_token_or_buyer_is_in_log_or_arguments(world):
    sale = world.sale()
    buyer = "a-very-recognisable-buyer"
    token = sale.token(buyer)
    assert world.order(token).status == 201
    world.control_tcp("GET", "/v1/status", headers={"Authorization": "Bearer " + "0" * 64})
    keys = [f"{word:016x}" for pair in world.signing_keys().values() for word in pair]
    for process in (world.daemon, world.writer):
        arguments = pathlib.Path(f"/proc/{process.pid}/cmdline").read_text()
        environment = pathlib.Path(f"/proc/{process.pid}/environ").read_text()
        for text in (secret(world), token, buyer, *keys):
            assert text not in process.log() + arguments + environment


def test_who_changes_what_is_in_the_log_but_no_payment_and_no_token(world):
    sale = world.sale(stock=2)
    order = world.order(sale.token()).json()["id"]
    token = sale.token()
    world.ask("PUT", "/v1/lists/deny/203.0.113.99", {"reason": "scraper"})
    world.ask("DELETE", "/v1/lists/deny/203.0.113.99")
    with world.limits(source=(21, 42)):
        pass
    world.ask("POST", f"/v1/sales/{sale.slug}/pause")
    world.ask("POST", f"/v1/orders/{order}/confirm")
    world.ask("POST", "/v1/tokens/revoke", {"token": token})
    world.ask("PUT", "/v1/lists/deny/not-a-prefix", {}, expect=(400, 404, 422))
    log = world.daemon.log()
    for line in ('PUT /v1/lists/deny/203.0.113.99 {"reason": "scraper"} is answered 200, to uid 0',
                 "DELETE /v1/lists/deny/203.0.113.99 is answered 204, to uid 0",
                 'PATCH /v1/limits {"source": {"rate": 21, "burst": 42}} is answered 200, to uid 0',
                 f"POST /v1/sales/{sale.slug}/pause is answered 200, to uid 0",
                 "POST /v1/tokens/revoke is answered 200, to uid 0"):
        assert f"control: {line}" in log
    assert token not in log and f"/v1/orders/{order}" not in log and "not-a-prefix" not in log


def test_the_unix_socket_is_open_to_its_group_only(world):
    assert world.control_socket.stat().st_mode & 0o777 == 0o660


def test_the_control_api_is_not_on_the_public_port_and_the_other_way_round(world, family):
    for target in ("/v1/status", "/v1/limits", "/metrics", "/v1/orders", "/v1/stats"):
        assert world.public("GET", target, family=family).status == 404, target
    sale = world.sale(stock=1)
    assert world.public("PUT", sale.path, {"per_buyer": 9}, family=family).status in (404, 405)
    assert world.public("POST", f"{sale.path}/end", family=family).status in (404, 405)
    assert sale.show()["state"] == "open"
    with pytest.raises(OSError):
        with world.connect(family, to=SHOP[family], to_port=9180):
            pass


# --- what is refused ----------------------------------------------------------------------------------------------------------
WINDOW = {"opens_at": "2026-01-01T00:00:00Z", "ends_at": "2036-01-01T00:00:00Z"}


@pytest.mark.parametrize("body, status, code, field", [
    ({**WINDOW, "stock": 1, "colour": "red"}, 400, "unknown_field", "colour"),
    ({**WINDOW, "stock": -1}, 422, None, "stock"),
    ({**WINDOW, "stock": 1, "per_buyer": 0}, 422, None, "per_buyer"),
    ({**WINDOW, "stock": 1, "per_buyer": 101}, 422, None, "per_buyer"),
    ({"stock": 1, "opens_at": "tomorrow", "ends_at": WINDOW["ends_at"]}, None, None, "opens_at"),
    ({"stock": 1, "opens_at": WINDOW["ends_at"], "ends_at": WINDOW["opens_at"]}, 422, None, "ends_at"),
    ({**WINDOW, "stock": "many"}, None, None, "stock"),
    ({**WINDOW, "stock": 1, "order_mode": "lottery"}, 422, None, "order_mode"),
], ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "")
def test_a_sale_that_cannot_be_is_refused_and_the_field_is_named(world, body, status, code, field):
    reply = world.control("PUT", "/v1/sales/refused", body)
    assert reply.status in ((status,) if status else (400, 422)), reply
    assert_problem(reply, reply.status, code or reply.code(), field)
    assert world.control("GET", "/v1/sales/refused").status == 404


def test_a_change_that_cannot_be_changes_nothing(world):
    sale = world.sale(stock=5)
    before = sale.show()
    for body in ({"per_buyer": 0}, {"per_buyer": 2, "nonsense": 1}, {"stock": 9}, {"ends_at": "never"}):
        assert world.control("PUT", sale.path, body).status in (400, 409, 422), body
    assert sale.show() == before


@pytest.mark.parametrize("slug", ["UPPER", "-a", "a-", "a_b", "a%20b", "x" * 65, "%2e%2e", "a%2fb"])
def test_a_slug_that_cannot_be(world, slug):
    assert world.control("PUT", f"/v1/sales/{slug}", {**WINDOW, "stock": 1}).status in (400, 404, 422)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"1", b'{"delta":1}x', b'{"delta":1,"delta":2}', b"\xff\xfe", b"[" * 3000],
                         ids=["empty", "open", "array", "null", "number", "rest", "twice", "binary", "deep"])
def test_a_body_that_is_no_object_is_malformed(world, raw):
    sale = world.sale(stock=5)
    reply = world.control("POST", f"{sale.path}/stock", raw=raw, headers={"Content-Type": "application/json"})
    assert reply.status in (400, 422), reply
    sale.assert_books(put_in=5)


def test_a_body_that_is_too_large(world):
    sale = world.sale(stock=5)
    reply = world.control("POST", f"{sale.path}/stock", raw=b'{"delta":1,"reason":"' + b"x" * 70000 + b'"}',
                          headers={"Content-Type": "application/json"})
    assert reply.status == 413, reply
    sale.assert_books(put_in=5)


@pytest.mark.parametrize("method, path, allowed", [
    ("DELETE", "/v1/status", {"GET"}), ("POST", "/v1/limits", {"GET", "PATCH"}), ("GET", "/v1/keys/rotate", {"POST"}),
    ("POST", "/metrics", {"GET"}), ("DELETE", "/v1/sales", {"GET"}), ("PATCH", "/v1/orders", {"GET"}),
])
def test_another_method_is_405_and_the_right_ones_are_named(world, method, path, allowed):
    reply = world.control(method, path)
    assert reply.status == 405, reply
    assert {name.strip() for name in reply.headers["Allow"].split(",")} - {"HEAD", "OPTIONS"} == allowed


def test_what_is_not_there_is_404(world):
    for path in ("/", "/v1", "/v1/nonsense", "/v2/status", "/v1/status/", "/v1/sales/none", "/v1/orders/0000000000000000",
                 "/../etc/passwd"):
        reply = world.control("GET", path)
        assert reply.status == 404, (path, reply)
        assert reply.headers["Content-Type"].startswith("application/problem+json")


def test_a_token_for_nobody_is_refused(world):
    sale = world.sale(per_buyer=2)
    for body in ({}, {"buyer": ""}, {"buyer": "x" * 129}, {"buyer": 5}, {"buyer": "a", "quantity": 0},
                 {"buyer": "a", "quantity": 3}, {"buyer": "a", "network": "nowhere"}, {"buyer": "a", "colour": 1}):
        reply = world.control("POST", f"{sale.path}/tokens", body)
        assert reply.status in (400, 422), (body, reply)
    assert world.control("POST", "/v1/sales/none/tokens", {"buyer": "a"}).code() == "unknown_sale"


# --- what is told ---------------------------------------------------------------------------------------------------------------
def test_status_tells_what_is_there(world):
    status = world.status()
    assert status["gate"]["attached"] is True and status["gate"]["pin_dir"] == str(world.pin_dir)
    assert status["gate"]["services"] == [{"name": "shop", "address": "any", "port": 8080, "kind": "sale"}]
    assert status["writer"]["connected"] is True and status["orders_open"] is True
    assert status["writer"]["ledger"] == str(world.ledger)
    assert status["uptime_seconds"] >= 0 and status["version"]


def test_a_sale_has_every_field_that_is_promised(world):
    sale = world.sale(stock=7, per_buyer=2, hold_seconds=60, pace_per_second=100, token_multiplier=3)
    shown = sale.show()
    assert set(shown) == {"slug", "id", "state", "stock", "opens_at", "ends_at", "per_buyer", "hold_seconds", "pace_per_second",
                          "order_mode", "token_multiplier", "free", "held", "confirmed"}
    assert (shown["stock"], shown["free"], shown["per_buyer"], shown["hold_seconds"], shown["pace_per_second"],
            shown["token_multiplier"], shown["order_mode"]) == (7, 7, 2, 60, 100, 3, "confirm")
    assert abs(seconds_of(shown["opens_at"]) - sale.opens_at) < 0.002
    assert shown in world.ask("GET", "/v1/sales")["sales"]
    changed = sale.change(per_buyer=3)
    assert changed == {**shown, "per_buyer": 3}, "absent fields stay"


def test_orders_can_be_listed_page_by_page_and_looked_up(world):
    sale = world.sale(stock=20)
    orders = [world.order(sale.token()).json() for _ in range(7)]
    page = world.ask("GET", f"/v1/orders?sale={sale.slug}&limit=3")
    assert len(page["orders"]) <= 3 and page["next"] is not None
    found, after = [], ""
    while after is not None:
        page = world.ask("GET", f"/v1/orders?sale={sale.slug}&limit=3" + (f"&after={after}" if after else ""))
        found += page["orders"]
        after = page["next"]
    assert [order["id"] for order in found] == [order["id"] for order in orders]
    assert world.ask("GET", f"/v1/orders?sale={sale.slug}&state=confirmed")["orders"] == []
    one = world.ask("GET", f"/v1/orders/{orders[3]['id']}")
    assert one["seq"] == 4 and one["sale"] == sale.slug
    assert re.fullmatch(r"[0-9a-f]{16}", found[0]["buyer"])
    assert found[0]["source"].startswith("10.72.")


def test_the_token_multiplier_bounds_live_tokens(world):
    sale = world.sale(stock=2, token_multiplier=2)
    for _ in range(4):
        sale.token()
    reply = world.control("POST", f"{sale.path}/tokens", {"buyer": sale.buyer()})
    assert_problem(reply, 429, "tokens_exhausted")


def test_a_token_can_be_inspected(world):
    sale = world.sale()
    token = sale.token()
    text = world.ask("POST", "/v1/tokens/inspect", {"token": token})
    assert (text["mac_valid"], text["admitted"], text["expired"]) == (True, False, False), text
    assert world.order(token).status == 201
    assert world.ask("POST", "/v1/tokens/inspect", {"token": token})["admitted"] is True
    old = sale.signed(issued_at=1_000_000_000, expires_at=1_000_000_001)
    assert world.ask("POST", "/v1/tokens/inspect", {"token": old})["expired"] is True
    spoilt = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert world.ask("POST", "/v1/tokens/inspect", {"token": spoilt})["mac_valid"] is False


def test_livez_and_readyz(world):
    for path in ("/livez", "/readyz"):
        reply = world.control("GET", path)
        assert reply.status == 200 and reply.body.strip() == b"ok", reply
    verbose = world.control("GET", "/readyz?verbose")
    assert verbose.status == 200 and b"writer" in verbose.body and verbose.body.endswith(b"ready\n"), verbose
    # A prober has no secret.
    assert world.control_tcp("GET", "/livez").status in (200, 401)


def reasons_of_the_header():
    return set(re.findall(r'^\tX\([A-Z0-9_]+, "([a-z0-9_]+)", (?:PASS|DROP|TX|ANSWER),', REASONS_H.read_text(), re.M))


def test_metrics_parse_and_reasons_are_labels(world):
    sale = world.sale(stock=1)
    winner, loser = sale.token(), sale.token()
    assert world.order(winner).status == 201 and world.order(loser).status == 409
    reply = world.control("GET", "/metrics")
    assert reply.status == 200 and reply.headers["Content-Type"].startswith("text/plain")
    samples, types, helps = {}, {}, set()
    for line in reply.body.decode("ascii").splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} is declared twice"
            types[name] = kind
        elif line.startswith("# HELP "):
            helps.add(line.split(" ")[2])
        elif line:
            match = re.fullmatch(r'([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="[^"\\\n]*",?)*)\})? (-?[0-9.eE+]+|NaN|[+-]Inf)', line)
            assert match, f"not a sample: {line}"
            name, labels, value = match.groups()
            key = (name, labels or "")
            assert key not in samples, f"{key} is there twice"
            samples[key] = float(value)
            family = re.sub(r"_(bucket|sum|count)$", "", name) if re.sub(r"_(bucket|sum|count)$", "", name) in types else name
            assert family in types and family in helps, f"{name} has no TYPE or HELP"
            assert name.startswith("sluice_"), name
            assert types[family] != "counter" or name.endswith("_total"), f"{name} is a counter"
    assert set(types.values()) <= {"counter", "gauge", "histogram", "summary"}
    found = {label for _, labels in samples for label in re.findall(r'reason="([^"]+)"', labels)}
    assert found <= reasons_of_the_header() and {"sold_out", "admitted", "syn_cookie"} <= found
    text = reply.body.decode("ascii")
    assert "10.72." not in text and "fd72" not in text, "an address in a label"
    packets = {labels: value for (name, labels), value in samples.items() if name == "sluice_packets_total"}
    assert any('service="shop"' in labels and 'reason="sold_out"' in labels and value >= 1 for labels, value in packets.items())


def test_stats_count_what_happens(world, family):
    sale = world.sale(stock=1)
    winner, loser = sale.token(), sale.token()
    before = world.stats()["orders"]["durable"]
    assert world.order(winner, family).status == 201
    sold_out = world.packets("sold_out")
    assert world.order(loser, family).status == 409
    assert world.packets("sold_out") == sold_out + 1
    stats = world.stats()
    assert stats["orders"]["durable"] == before + 1
    assert stats["orders"]["refused_by_ledger"] == 0 and stats["orders"]["in_flight"] == 0
    assert set(stats["calls"]) <= reasons_of_the_header()
    shop = stats["packets"]["shop"]
    assert shop.get("none", {}).get("packets", 0) == 0, "an undecided packet is a defect"
    assert all(entry["bytes"] >= entry["packets"] * 54 for entry in shop.values() if entry["packets"])


# --- what is changed is in force at the gate ----------------------------------------------------------------------------------
def can_connect(world, family, source):
    sock = world.socket(family, source)
    sock.settimeout(0.4)
    with sock:
        try:
            sock.connect((SHOP[family], 8080))
            return True
        except (TimeoutError, socket.timeout):
            return False


@pytest.mark.parametrize("written", ["address", "prefix", "escaped"])
def test_who_is_denied_gets_no_answer_until_removed(world, family, written):
    source, other = world.source(family), world.source(family)
    length = 32 if family == "ipv4" else 128
    entry = {"address": source, "prefix": f"{source}/{length}", "escaped": f"{source}%2F{length}"}[written]
    world.ask("PUT", f"/v1/lists/deny/{entry}", {"reason": "test"})
    denied = world.packets("denied")
    assert not can_connect(world, family, source) and can_connect(world, family, other)
    assert world.packets("denied") > denied
    listed = {row["prefix"]: row for row in world.ask("GET", "/v1/lists/deny")["entries"]}
    row = listed[f"{source}/{length}" if f"{source}/{length}" in listed else source]
    assert row["hits"] >= 1 and row["reason"] == "test" and row["expires_at"] is None
    world.ask("DELETE", f"/v1/lists/deny/{entry}")
    assert can_connect(world, family, source)
    assert world.control("DELETE", f"/v1/lists/deny/{entry}").code() == "no_entry"


def test_an_expired_entry_stops_matching_at_once(world, family):
    source = world.source(family)
    world.ask("PUT", f"/v1/lists/deny/{source}", {"ttl_seconds": 2})
    listed, = [row for row in world.ask("GET", "/v1/lists/deny")["entries"] if row["prefix"].startswith(source)]
    assert not can_connect(world, family, source)
    expires = seconds_of(listed["expires_at"])
    time.sleep(max(0.0, expires + 0.05 - time.time()))
    assert can_connect(world, family, source)


def test_allow_beats_deny(world, family):
    source = world.source(family)
    wide = "10.72.0.0/16" if family == "ipv4" else "fd72::/32"
    world.ask("PUT", f"/v1/lists/deny/{wide}")
    try:
        assert not can_connect(world, family, source)
        world.ask("PUT", f"/v1/lists/allow/{source}")
        assert can_connect(world, family, source)
        assert not can_connect(world, family, world.source(family))
    finally:
        world.ask("DELETE", f"/v1/lists/deny/{wide}")
        world.ask("DELETE", f"/v1/lists/allow/{source}", expect=(204, 404))
    assert can_connect(world, family, world.source(family))


def test_lists_survive_a_restart_of_the_daemon(world, family):
    source = world.source(family)
    world.ask("PUT", f"/v1/lists/deny/{source}", {"ttl_seconds": 600, "reason": "kept"})
    assert world.daemon.terminate() == 0
    assert not can_connect(world, family, source), "the gate needs no daemon for this"
    world.start_daemon()
    assert "kept" in [row["reason"] for row in world.ask("GET", "/v1/lists/deny")["entries"]]
    assert not can_connect(world, family, source)
    world.ask("DELETE", f"/v1/lists/deny/{source}")
    assert can_connect(world, family, source)


@pytest.mark.parametrize("prefix", ["192.0.2.1/24", "300.1.1.1", "192.0.2.0/33", "2001:db8::1/32", "nonsense", "::/0", "10.0.0.0/"])
def test_a_prefix_that_cannot_be(world, prefix):
    reply = world.control("PUT", f"/v1/lists/deny/{prefix}")
    assert reply.status in (400, 422), reply


def test_a_list_is_read_page_by_page(world):
    for n in range(5):
        world.ask("PUT", f"/v1/lists/allow/198.51.100.{n}")
    found, after = [], ""
    while after is not None:
        page = world.ask("GET", "/v1/lists/allow?limit=2" + (f"&after={after}" if after else ""))
        assert len(page["entries"]) <= 2
        found += [row["prefix"] for row in page["entries"]]
        after = page["next"]
    assert len(found) == len(set(found)) and len([prefix for prefix in found if prefix.startswith("198.51.100.")]) == 5
    for n in range(5):
        world.ask("DELETE", f"/v1/lists/allow/198.51.100.{n}")


def test_limits_are_in_force_from_the_next_packet_on(world, family):
    token, source = world.sale(opens_in=600).token(), world.source(family)
    before = world.ask("GET", "/v1/limits")
    assert set(before) == {"source", "prefix", "token", "answer", "syn_prefix", "syn_global", "pace", "deny", "shadow"}
    assert before["source"] == {"rate": 50, "burst": 100, "shadow": False} and before["syn_global"]["rate"] == 0
    with world.limits(source=(0.02, 1)):
        assert world.ask("GET", "/v1/limits") == {**before, "source": {"rate": 0.02, "burst": 1, "shadow": False}}
        assert [world.order(token, family, source).status for _ in range(2)] == [409, 429]
        world.ask("PATCH", "/v1/limits", {"source": {"rate": 0, "burst": 1}})
        assert world.order(token, family, source).status == 409
    assert world.ask("GET", "/v1/limits") == before


@pytest.mark.parametrize("body", [{"source": {"rate": -1, "burst": 1}}, {"source": {"rate": 1, "burst": 0}}, {"nonsense": {}},
                                  {"source": {"rate": "fast", "burst": 1}}, {"source": {"rate": 1, "burst": 1, "more": 1}}])
def test_limits_that_cannot_be_change_nothing(world, body):
    before = world.ask("GET", "/v1/limits")
    body = {"prefix": {"rate": 7, "burst": 7}, **body}
    assert world.control("PATCH", "/v1/limits", body).status in (400, 422)
    assert world.ask("GET", "/v1/limits") == before


def test_keys_rotate_and_tokens_of_the_key_before_stay_good(family):
    with World() as shop:
        sale = shop.sale(stock=10)
        buyer = sale.buyer()
        old, spare = sale.token(buyer), sale.token()
        key = shop.ask("POST", "/v1/keys/rotate")["key_id"]
        assert Token.read(old).key_id != key
        new = sale.token()
        assert Token.read(new).key_id == key and Token.read(new).mac_is_good(shop.signing_keys())
        for token in (old, new):
            assert shop.order(token, family).status == 201
        refused = shop.control("POST", "/v1/keys/rotate")
        assert (refused.status, refused.code()) == (409, "key_in_use"), "a valid token is signed with the key that would go"
        assert shop.order(sale.token(), family).status == 201
        shop.ask("POST", "/v1/keys/rotate", {"force": True})
        answer = shop.order(spare, family)
        assert (answer.status, answer.code()) == (401, "token_invalid"), "two rotations later the key is gone"
        assert shop.order(sale.token(), family).status == 201


def test_the_cors_origin_is_in_every_answer(family):
    with World({"daemon.cors_origin": "https://shop.example"}) as shop:
        sale = shop.sale(opens_in=600)
        for answer in (shop.order(sale.token(), family), shop.order_by_call_door(sale.token(), family),
                       shop.public("GET", sale.path, family=family)):
            assert answer.header("access-control-allow-origin") == "https://shop.example", answer


def test_public_tokens_can_be_closed_and_bound_to_their_network(family):
    with World({"daemon.public_tokens": False}) as shop:
        sale = shop.sale()
        answer = shop.public("POST", f"{sale.path}/tokens", {"buyer": "b"}, family=family)
        assert (answer.status, answer.code()) == (403, "tokens_closed"), answer
        assert shop.order(sale.token(), family).status == 201
    with World({"daemon.token_bind_network": True, "daemon.issue_source": {"rate": 0.02, "burst": 3}}) as shop:
        sale = shop.sale()
        mine, other = shop.source(family), "10.72.249.1" if family == "ipv4" else "fd72:0:0:fff0::1"
        tokens = [shop.public("POST", f"{sale.path}/tokens", {"buyer": f"b{n}"}, family=family, source=mine).json()["token"]
                  for n in range(3)]
        answer = shop.public("POST", f"{sale.path}/tokens", {"buyer": "b4"}, family=family, source=mine)
        assert (answer.status, answer.code()) == (429, "rate_limited"), answer
        assert shop.order(tokens[0], family, other).code() == "wrong_network"
        assert shop.order(tokens[0], family, mine).status == 201


def test_changes_of_a_sale_are_in_force_at_once(world, family):
    sale = world.sale(stock=5)
    token = sale.token()
    sale.change(opens_at=rfc3339(time.time() + 600))
    assert world.order(token, family).code() == "sale_not_open"
    reply = world.control("PUT", sale.path, {"opens_at": rfc3339(time.time() - 5), "ends_at": rfc3339(time.time() - 1)})
    assert_problem(reply, 422, "out_of_range", "ends_at")
    sale.change(opens_at=rfc3339(time.time() - 5), ends_at=rfc3339(time.time() + 0.5))
    wait_until(lambda: sale.show()["state"] == "ended", "the sale ends when it was told to")
    assert world.order(token, family).code() == "sale_ended"
    sale.assert_books(put_in=5, free=5)


def test_a_thousand_and_twenty_five_sales_are_one_too_many():
    with World() as shop:
        body = {"stock": 0, **WINDOW}
        for n in range(1024):
            assert shop.control("PUT", f"/v1/sales/s{n}", body).status == 201, n
        assert_problem(shop.control("PUT", "/v1/sales/too-many", body), 409, "too_many_sales")
        assert len(shop.ask("GET", "/v1/sales")["sales"]) == 1024
        assert shop.ask("POST", "/v1/sales/s1023/stock", {"delta": 1})["free"] == 1
        token = shop.ask("POST", "/v1/sales/s1023/tokens", {"buyer": "b"})["token"]
        assert shop.order(token).status == 201
