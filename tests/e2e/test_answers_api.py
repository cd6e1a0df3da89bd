# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The operator's own answers: at both doors, on both families, kept over restart and reload, and never half of one and half of the other."""
import json
import threading

import pytest

import talk
from netns import wait_until
from rawtcp import RawClient
from world import DEVICE, World

OK, FAILED, USAGE, NOT_FOUND = 0, 1, 2, 3
CODES = {"token_invalid": 401, "token_expired": 401, "wrong_network": 403, "unknown_sale": 404, "sale_not_open": 409, "sold_out": 409,
         "already_ordered": 409, "sale_ended": 410, "wrong_node": 421, "rate_limited": 429, "paused": 503, "unavailable": 503}
FORGED = "A" * 64


@pytest.fixture
def shop(world):
    """The shop, with default answers before and after."""
    reset(world)
    yield world
    reset(world)


def reset(world):
    world.ask("PUT", "/v1/answers", {"cors_origin": None})
    for code in CODES:
        world.ask("DELETE", f"/v1/answers/{code}")


def own(world, code, body, content_type=None, headers=None):
    document = {"body": body}
    if content_type:
        document["content_type"] = content_type
    if headers:
        document["headers"] = headers
    return world.ask("PUT", f"/v1/answers/{code}", document)


def assert_problem(reply, status, code, field=None):
    problem = reply.json()
    assert (reply.status, problem["code"]) == (status, code), reply
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    if field:
        assert problem["field"] == field, problem
    return problem


def answered_by_gate(world, ask):
    """Asks, and makes sure that the answer came without the daemon."""
    before = world.packets("token_form")
    answer = ask()
    assert world.packets("token_form") == before + 1
    return answer


def checksum_errors(world):
    """TCP segments that the crowd's kernel has thrown away for their checksum."""
    names, values = [line.split()[1:] for line in world.crowd.run(["cat", "/proc/net/snmp"]).stdout.splitlines()
                     if line.startswith("Tcp:")]
    return int(dict(zip(names, values))["InCsumErrors"])


# --- both doors ------------------------------------------------------------------------------------------------------------
def test_an_own_answer_goes_out_at_both_doors(shop, family):
    body = '{"title":"Pass ungültig","code":"token_invalid","shop":"drop-11"}'
    document = own(shop, "token_invalid", body, headers={"X-Shop": "drop 11", "Content-Language": "de"})
    assert document["source"] == "operator" and document["status"] == 401 and document["body"] == body
    answer = answered_by_gate(shop, lambda: shop.curl_order(FORGED, family=family).answer)
    door = shop.order_by_call_door(FORGED, family)
    for got in (answer, door):
        assert got.status == 401 and got.body == body.encode(), got
        assert got.header("content-type") == "application/problem+json"
        assert got.header("x-shop") == "drop 11" and got.header("content-language") == "de"
        assert got.header("cache-control") == "no-store" and got.header("connection") == "close"
        assert int(got.header("content-length")) == len(body.encode())
    assert sorted(answer.header_names()) == sorted(door.header_names())
    assert answer.raw.decode() == document["http"][:len(answer.raw.decode())]


def test_another_type_and_a_retry_after(shop, family):
    own(shop, "sale_not_open", "<p>Soon</p>", "text/html; charset=utf-8")
    token = shop.sale(opens_in=600).token()
    for answer in (shop.curl_order(token, family=family).answer, shop.order_by_call_door(token, family)):
        assert answer.status == 409 and answer.body == b"<p>Soon</p>"
        assert answer.header("content-type") == "text/html; charset=utf-8"
        assert 0 < int(answer.header("retry-after")) <= 600


@pytest.mark.parametrize("length", [0, 1, 2, 9, 10, 11, 97, 98, 99, 100, 101, 102])
def test_any_length_has_a_good_checksum(shop, family, length):
    own(shop, "token_invalid", "x" * length, "text/plain")
    with RawClient(shop, family) as client:
        client.handshake()
        request = talk.request("POST", f"/v1/orders/{FORGED}", [("X-Padding", "p" * 300)])
        client.send("PA", request)
        packet = client.receive()
        assert packet is not None and client.checksums_are_good(packet)
        client.take(packet)
        assert client.received.endswith(b"\r\n\r\n" + b"x" * length)


def test_reset_brings_the_default_back(shop, family):
    before = shop.order(FORGED, family)
    own(shop, "token_invalid", "{}")
    assert shop.order(FORGED, family).body == b"{}"
    document = shop.ask("DELETE", "/v1/answers/token_invalid")
    assert document["source"] == "default"
    assert shop.order(FORGED, family).raw == before.raw
    assert shop.ask("DELETE", "/v1/answers/token_invalid")["source"] == "default", "as often as you like"


def test_what_is_told_is_what_is_sent(shop):
    for code, status in CODES.items():
        document = shop.ask("GET", f"/v1/answers/{code}")
        assert document["code"] == code and document["status"] == status and document["limit"] == 1000
        assert document["source"] == "default" and document["headers"] == {}
        assert len(document["http"].encode()) == document["size"] <= 1000
        assert document["http"].startswith(f"HTTP/1.1 {status} ") and document["http"].endswith(document["body"])
        assert ("Retry-After:" in document["http"]) == document["retry_after"]
        assert json.loads(document["body"])["code"] == code
    listed = shop.ask("GET", "/v1/answers")
    assert {row["code"]: row["status"] for row in listed["answers"]} == CODES
    assert listed["cors_origin"] == "" and listed["cors_source"] == "config"


# --- what is refused -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("document, status, code, field", [
    ({}, 400, "missing_field", "body"),
    ({"body": 5}, 400, "wrong_type", "body"),
    ({"body": "{}", "status": 200}, 400, "unknown_field", "status"),
    ({"body": "{}", "content_type": None}, 400, "wrong_type", "content_type"),
    ({"body": "{}", "headers": ["X-A: b"]}, 400, "wrong_type", "headers"),
    ({"body": "{}", "headers": {"X-A": 1}}, 400, "wrong_type", "headers"),
    ({"body": "{"}, 422, "out_of_range", "body"),
    ({"body": '{"code":"paused"}'}, 422, "out_of_range", "body"),
    ({"body": "x", "content_type": "text/plain\r\nSet-Cookie: a=b"}, 422, "out_of_range", "content_type"),
    ({"body": "{}", "headers": {"X-A": "b\r\nSet-Cookie: a=b"}}, 422, "out_of_range", "headers"),
    ({"body": "{}", "headers": {"X-A\r\nX-B": "b"}}, 422, "out_of_range", "headers"),
    ({"body": "{}", "headers": {"Content-Length": "5"}}, 422, "out_of_range", "headers"),
    ({"body": "{}", "headers": {"Transfer-Encoding": "chunked"}}, 422, "out_of_range", "headers"),
    ({"body": "{}", "headers": {"Access-Control-Allow-Origin": "*"}}, 422, "out_of_range", "headers"),
    ({"body": "{}", "headers": {f"X-{n}": "b" for n in range(9)}}, 422, "out_of_range", "headers"),
], ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "")
def test_what_cannot_be_an_answer_is_refused_and_changes_nothing(shop, document, status, code, field):
    before = shop.ask("GET", "/v1/answers/sold_out")
    problem = assert_problem(shop.control("PUT", "/v1/answers/sold_out", document), status, code, field)
    assert problem["detail"]
    assert shop.ask("GET", "/v1/answers/sold_out") == before


def test_a_nul_or_broken_text_is_refused(shop):
    for raw in (rb'{"body":"a\u0000b","content_type":"text/plain"}', b'{"body":"\xff"}', rb'{"body":"\ud800"}', b'{"body":"a\x00b"}'):
        reply = shop.control("PUT", "/v1/answers/sold_out", raw=raw, headers={"Content-Type": "application/json"})
        assert_problem(reply, 400, "malformed_json")
    assert shop.ask("GET", "/v1/answers/sold_out")["source"] == "default"


def test_what_is_too_long_is_told_by_how_much(shop):
    problem = assert_problem(shop.control("PUT", "/v1/answers/sold_out", {"body": "x" * 900, "content_type": "text/plain"}), 422,
                             "answer_too_long")
    assert problem["answer"] == "sold_out" and problem["limit"] == 1000
    over = problem["size"] - problem["limit"]
    assert 0 < over < 100 and str(problem["size"]) in problem["detail"]
    document = own(shop, "sold_out", "x" * (900 - over), "text/plain")
    assert document["size"] in (999, 1000)
    # With a CORS header it would not fit any more: then the origin is what is refused, for all of them.
    problem = assert_problem(shop.control("PUT", "/v1/answers", {"cors_origin": "https://shop.example"}), 422, "answer_too_long")
    assert problem["answer"] == "sold_out"
    assert shop.ask("GET", "/v1/answers")["cors_origin"] == ""
    assert "Access-Control" not in shop.ask("GET", "/v1/answers/paused")["http"]


def test_there_are_no_other_answers(shop):
    for code in ("none", "gone", "SOLD_OUT", "sold_out%20"):
        for method in ("GET", "PUT", "DELETE"):
            assert_problem(shop.control(method, f"/v1/answers/{code}", {"body": "{}"} if method == "PUT" else None), 404, "no_answer")


# --- CORS ------------------------------------------------------------------------------------------------------------------------
def test_the_cors_origin_changes_everywhere_at_once(shop, family):
    own(shop, "token_invalid", "{}")
    sale = shop.sale(opens_in=600)
    token = sale.token()
    for origin in ("https://shop.example", "*", "http://[2001:db8::1]:8443"):
        assert shop.ask("PUT", "/v1/answers", {"cors_origin": origin})["cors_source"] == "operator"
        for answer in (shop.order(FORGED, family), shop.order_by_call_door(FORGED, family), shop.order(token, family),
                       shop.public("GET", sale.path, family=family), shop.curl(sale.path, method="OPTIONS", family=family).answer):
            assert answer.header("access-control-allow-origin") == origin, answer
    shop.ask("PUT", "/v1/answers", {"cors_origin": ""})
    assert shop.order(FORGED, family).header("access-control-allow-origin") is None
    assert shop.public("GET", sale.path, family=family).header("access-control-allow-origin") is None


@pytest.mark.parametrize("origin", ["null", "https://shop.example/", "HTTPS://shop.example", "https://a\r\nX: y", "shop.example",
                                    "https://a https://b", "x" * 200])
def test_what_is_no_origin_is_refused(shop, origin):
    assert_problem(shop.control("PUT", "/v1/answers", {"cors_origin": origin}), 422, "out_of_range", "cors_origin")
    for document, code in (({}, "missing_field"), ({"cors_origin": 1}, "wrong_type"), ({"cors_origin": "*", "x": 1}, "unknown_field")):
        assert_problem(shop.control("PUT", "/v1/answers", document), 400, code)
    assert shop.ask("GET", "/v1/answers")["cors_source"] == "config"


# --- kept ------------------------------------------------------------------------------------------------------------------------
def test_answers_outlive_the_daemon_a_reload_and_a_new_attach(family):
    body = '{"code":"token_invalid","detail":"Ask for a new link."}'
    with World({"daemon.cors_origin": "https://config.example"}) as shop:
        own(shop, "token_invalid", body)
        own(shop, "paused", "later", "text/plain")
        shop.ask("PUT", "/v1/answers", {"cors_origin": "https://operator.example"})
        kept = shop.state_dir / "answers.json"
        assert kept.stat().st_mode & 0o777 == 0o600

        def assert_own():
            answer = shop.order(FORGED, family)
            assert answer.body == body.encode() and answer.header("access-control-allow-origin") == "https://operator.example"
        assert_own()
        shop.daemon.kill()
        shop.start_daemon()
        assert_own()
        shop.sluice("reload", "--config", shop.config)
        assert_own()
        assert shop.daemon.terminate() == 0
        shop.sluice("detach", DEVICE, "--config", shop.config)
        shop.attach()
        shop.start_daemon()
        assert_own()
        assert shop.ask("GET", "/v1/answers/paused")["body"] == "later"
        # The file is a copy: the ledger's document is what counts.
        assert shop.daemon.terminate() == 0
        kept.unlink()
        shop.start_daemon()
        assert_own()
        shop.ask("DELETE", "/v1/answers/token_invalid")
        shop.ask("PUT", "/v1/answers", {"cors_origin": None})
        answer = shop.order(FORGED, family)
        assert answer.code() == "token_invalid" and answer.header("access-control-allow-origin") == "https://config.example"


@pytest.mark.parametrize("spoilt", ["", "{", '{"version":1}', '{"version":2,"answers":{}}', '{"version":1,"answers":{"gone":{"body":"{}"}}}',
                                    '{"version":1,"answers":{"paused":{"body":"x\\r\\n","headers":{"X-A":"b\\r\\nc"}}}}',
                                    '{"version":1,"answers":{},"cors_origin":"nonsense"}'],
                         ids=range(7))
def test_a_spoilt_file_is_put_aside_and_the_ledgers_answers_are_in_force(shop, spoilt):
    own(shop, "sold_out", "{}")
    assert shop.daemon.terminate() == 0
    kept = shop.state_dir / "answers.json"
    kept.write_text(spoilt, encoding="utf-8")
    shop.start_daemon()
    assert "answers.json" in shop.daemon.log() and "put aside" in shop.daemon.log()
    assert (shop.state_dir / "answers.json.rejected").read_text(encoding="utf-8") == spoilt
    assert json.loads(kept.read_text(encoding="utf-8"))["answers"] == {"sold_out": {"body": "{}"}}
    assert [row["code"] for row in shop.ask("GET", "/v1/answers")["answers"] if row["source"] == "operator"] == ["sold_out"]
    assert shop.order(shop.sale().token()).status == 201


def test_an_answer_that_does_not_fit_is_left_out_and_the_others_are_in_force(shop):
    kept = shop.state_dir / "answers.json"
    text = json.dumps({"version": 1, "unsaved": True, "answers": {"paused": {"body": "x" * 2000, "content_type": "text/plain"}, "sold_out": {"body": "{}"}}})
    assert shop.daemon.terminate() == 0
    kept.write_text(text, encoding="utf-8")
    shop.start_daemon()
    assert "the operator's answer paused is not in force" in shop.daemon.log()
    rows = {row["code"]: row["source"] for row in shop.ask("GET", "/v1/answers")["answers"]}
    assert rows["sold_out"] == "operator" and rows["paused"] == "default"
    assert kept.read_text(encoding="utf-8") == text, "it stays for a version, or an origin, with which it fits"
    own(shop, "sold_out", "{ }")
    assert (shop.state_dir / "answers.json.rejected").read_text(encoding="utf-8") == text, "a change does not overwrite it"


def test_what_cannot_be_kept_is_not_put_into_the_gate(shop):
    """The directory stands for a full disk: the name of the new file is taken by something that cannot be replaced."""
    in_the_way = shop.state_dir / "answers.json.new"
    in_the_way.mkdir()
    try:
        assert_problem(shop.control("PUT", "/v1/answers/sold_out", {"body": "{}"}), 500, "internal_error")
        assert shop.ask("GET", "/v1/answers/sold_out")["source"] == "default"
    finally:
        in_the_way.rmdir()
    assert own(shop, "sold_out", "{}")["source"] == "operator"


# --- together --------------------------------------------------------------------------------------------------------------------
def test_a_change_made_on_an_old_reading_is_refused(shop):
    first = shop.control("GET", "/v1/answers/sold_out")
    tag = first.headers["ETag"]
    assert shop.control("PUT", "/v1/answers/sold_out", {"body": "{}"}, headers={"If-Match": tag}).status == 200
    reply = shop.control("PUT", "/v1/answers/sold_out", {"body": "{ }"}, headers={"If-Match": tag})
    assert reply.status == 412
    assert shop.ask("GET", "/v1/answers/sold_out")["body"] == "{}"
    tag = shop.control("GET", "/v1/answers").headers["ETag"]
    assert shop.control("PUT", "/v1/answers", {"cors_origin": "*"}, headers={"If-Match": tag}).status == 200
    assert shop.control("PUT", "/v1/answers", {"cors_origin": ""}, headers={"If-Match": tag}).status == 412


def test_no_answer_is_ever_half_of_one_and_half_of_another(world):
    """Two bodies of one length take turns as fast as the API lets them, while clients look at what comes from both doors. (A frame whose
    checksum belongs to another body would not even reach them: their kernel counts it. What the two banks promise is tried much harder,
    without a network, in tests/unit/test_answers_state.c.)"""
    bodies = {letter: letter * 200 for letter in "AB"}
    whole = {body.encode() for body in bodies.values()}
    stop, puts, seen, wrong = threading.Event(), [0, 0], {"gate": 0, "door": 0}, []
    reset(world)

    def put(who):
        while not stop.is_set():
            letter = "AB"[(puts[who] + who) % 2]
            reply = world.control("PUT", "/v1/answers/token_invalid", {"body": bodies[letter], "content_type": "text/plain"})
            if reply.status != 200:
                wrong.append(reply)
            puts[who] += 1

    def ask_gate():
        while not stop.is_set():
            answer = world.order(FORGED)
            seen["gate"] += 1
            if answer.body not in whole or answer.status != 401:
                wrong.append(answer)

    def ask_door():
        while not stop.is_set():
            with world.connect() as connection:
                data = talk.request("POST", f"/v1/orders/{FORGED}", [("Connection", "close")])
                connection.send_in_pieces(data, [40, len(data)], pause=0)
                answer = connection.receive_only()
            seen["door"] += 1
            if answer.body not in whole or answer.status != 401:
                wrong.append(answer)

    own(world, "token_invalid", bodies["A"], "text/plain")
    damaged = checksum_errors(world)
    with world.limits(source=(0, 1), prefix=(0, 1), answer=(0, 1), syn_prefix=(0, 1)):
        threads = [threading.Thread(target=put, args=(0,)), threading.Thread(target=put, args=(1,))]
        threads += [threading.Thread(target=work) for work in (ask_gate, ask_gate, ask_door)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: wrong or (seen["gate"] >= 3000 and seen["door"] >= 300 and sum(puts) >= 60),
                       "thousands of answers", timeout=60)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    print(f"{sum(puts)} changes; answers looked at: {seen}")
    reset(world)
    assert not wrong, wrong[:3]
    assert checksum_errors(world) == damaged


# --- the command -----------------------------------------------------------------------------------------------------------------
def test_the_command(shop, family):
    table = shop.cli("answer", "list").stdout
    assert "sold_out" in table and "CORS origin: none (config)" in table
    assert shop.cli("answer", "show", "sold_out").stdout.startswith("HTTP/1.1 409 Conflict\n")
    body, headers = shop.dir / "body.html", shop.dir / "headers"
    body.write_text("<p>Forged.</p>\n", encoding="utf-8")
    headers.write_text("X-Shop: drop 11\nContent-Language: en\n", encoding="utf-8")
    done = shop.cli("answer", "set", "token_invalid", "--file", body, "--content-type", "text/html", "--headers", headers)
    assert "X-Shop: drop 11\n" in done.stdout and done.stdout.endswith("\n\n<p>Forged.</p>\n")
    answer = shop.curl_order(FORGED, family=family).answer
    assert answer.body == b"<p>Forged.</p>\n" and answer.header("x-shop") == "drop 11"
    done = shop.cli("answer", "set", "token_invalid", "--file", "-", "--content-type", "text/plain", input="y" * 950, check=False)
    assert done.returncode == USAGE and "answer_too_long" in done.stderr
    done = shop.cli("answer", "set", "token_invalid", "--file", "-", "--content-type", "text/plain", input="y" * 400)
    assert "cannot grow" in done.stderr
    assert shop.cli("answer", "show", "nothing", check=False).returncode == NOT_FOUND
    assert shop.cli("answer", "set", "token_invalid", "--file", shop.dir / "nowhere", check=False).returncode == FAILED
    assert '"title":"Unauthorized"' in shop.cli("answer", "reset", "token_invalid").stdout
    assert "CORS origin: https://shop.example (operator)" in shop.cli("answer", "cors", "https://shop.example").stdout
    assert shop.order(FORGED, family).header("access-control-allow-origin") == "https://shop.example"
    assert "none (operator)" in shop.cli("answer", "cors", "none").stdout
    assert "none (config)" in shop.cli("answer", "cors", "config").stdout
    assert shop.cli("answer", "cors", "nonsense", check=False).returncode == USAGE
    assert json.loads(shop.cli("answer", "show", "paused", "-o", "json").stdout)["code"] == "paused"
