# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What is set on one node reaches all: limits, shadow switches, lists, answers, sales. Whatever Redis loses, and whoever was away, all end the same.

How long things take is printed (pytest -s), not asserted.
"""
import contextlib
import time

import pytest

from fleet import Fleet, until
from netns import wait_until
from world import rfc3339

MANY = 10_000
REACHES_S = 10
HUB_BACK_S = 20
ROOM = {"gate.max_prefixes": 2 * MANY}


@pytest.fixture(scope="module")
def fleet():
    with Fleet(settings=ROOM) as three:
        yield three


@pytest.fixture()
def pair():
    with Fleet(count=2, settings=ROOM) as two:
        yield two


def listed(node, name):
    """{prefix: entry} of a list as a node has it, without what it counts."""
    found, after = {}, ""
    while True:
        page = node.ask("GET", f"/v1/lists/{name}?limit=1000{after}")
        for one in page["entries"]:
            found[one["prefix"]] = {key: value for key, value in one.items() if key != "hits"}
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def entry(node, name, prefix):
    return listed(node, name).get(prefix)


def entries(node, name):
    return node.ask("GET", f"/v1/lists/{name}?limit=1")["total"]


def limit(node, name="source"):
    return node.ask("GET", "/v1/limits")[name]


def all_settings(node):
    """What all nodes must agree in."""
    sales = {sale["slug"]: [sale[key] for key in ("id", "opens_at", "ends_at", "per_buyer", "hold_seconds", "pace_per_second", "token_multiplier")] +
             [sale["state"] in ("paused", "ended")] for sale in node.ask("GET", "/v1/sales")["sales"]}
    return {"limits": node.ask("GET", "/v1/limits"), "answers": node.ask("GET", "/v1/answers"), "sales": sales,
            "deny": listed(node, "deny"), "allow": listed(node, "allow")}


def assert_same_everywhere(fleet):
    wait_until(lambda: all(node.status()["fleet"]["settings"]["unsent"] == 0 for node in fleet.living()), "everything is told")
    with contextlib.suppress(AssertionError):
        wait_until(lambda: all(all_settings(node) == all_settings(fleet.living()[0]) for node in fleet.living()), "", timeout=REACHES_S)
    first = all_settings(fleet.living()[0])
    for node in fleet.living():
        assert all_settings(node) == first, f"node {node.number}"


def reaches(fleet, condition, what):
    took = until(lambda: all(condition(node) for node in fleet.living()), f"all nodes have {what}", REACHES_S)
    print(f"\n{what}: on all nodes after {took * 1000:.0f} ms")


def away(fleet):
    for node in fleet.nodes:
        fleet.hub.partition(node.number)
    for node in fleet.living():
        wait_until(lambda node=node: not node.status()["fleet"]["connected"], f"node {node.number} misses Redis", timeout=HUB_BACK_S)


def back(fleet):
    def has_redis(node):
        with contextlib.suppress(OSError):
            return node.status()["fleet"]["connected"]
    fleet.hub.heal()
    for node in fleet.living():
        wait_until(lambda node=node: has_redis(node), f"node {node.number} has Redis again", timeout=HUB_BACK_S)


# --- one sets, the others have it ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_limit_reaches_all(fleet, at):
    wanted = {"rate": 40.0 + at, "burst": 100 + at}
    reply = fleet[at].ask("PATCH", "/v1/limits", {"source": wanted})
    assert "not_replicated" not in reply
    reaches(fleet, lambda node: {key: limit(node)[key] for key in wanted} == wanted, f"a limit of node {at}")


def test_shadow_mode_reaches_all(fleet):
    for on in (True, False):
        fleet[2].ask("PATCH", "/v1/limits", {"deny": {"shadow": on}, "token": {"shadow": on}})
        reaches(fleet, lambda node, on=on: limit(node, "deny")["shadow"] == limit(node, "token")["shadow"] == on, f"shadow {on}")


def test_an_entry_reaches_all_and_so_does_its_removal(fleet):
    fleet[1].ask("PUT", "/v1/lists/deny/192.0.2.0/24", {"label": "ticket", "reason": "4711"})
    reaches(fleet, lambda node: entry(node, "deny", "192.0.2.0/24"), "an entry")
    assert [entry(node, "deny", "192.0.2.0/24") for node in fleet.nodes] == [entry(fleet[1], "deny", "192.0.2.0/24")] * 3
    fleet[3].ask("DELETE", "/v1/lists/deny/192.0.2.0/24")
    reaches(fleet, lambda node: entry(node, "deny", "192.0.2.0/24") is None, "its removal")


def test_a_ban_ends_on_all_nodes_at_the_same_second(fleet):
    put = fleet[2].ask("PUT", "/v1/lists/deny/2001:db8::/32", {"ttl_seconds": 3600})
    reaches(fleet, lambda node: entry(node, "deny", "2001:db8::/32"), "a ban")
    assert {entry(node, "deny", "2001:db8::/32")["expires_at"] for node in fleet.nodes} == {put["expires_at"]}


def test_a_banned_source_is_dropped_on_every_node(fleet):
    source = fleet[1].source()
    fleet[1].ask("PUT", f"/v1/lists/deny/{source}/32", {})
    reaches(fleet, lambda node: entry(node, "deny", f"{source}/32") or entry(node, "deny", source), "a ban")
    for node in fleet.nodes:
        before = node.packets("denied")
        with pytest.raises(OSError):
            sock = node.socket(source=source)
            sock.settimeout(0.5)
            with sock:
                sock.connect((node.network.address["ipv4"], 8080))
        assert node.packets("denied") > before


def test_an_import_reaches_all_and_an_undo_takes_it_from_all(fleet):
    lines = "".join(f"10.{i // 65536 + 1}.{i // 256 % 256}.{i % 256}\n" for i in range(MANY))
    before = entries(fleet[1], "deny")
    reply = fleet[1].control("POST", "/v1/lists/deny?label=feed", raw=lines.encode(), headers={"Content-Type": "text/plain"})
    assert reply.status == 200 and reply.json()["added"] == MANY, reply
    reaches(fleet, lambda node: entries(node, "deny") == before + MANY, f"{MANY} entries")
    removed = fleet[3].ask("DELETE", "/v1/lists/deny?label=feed")
    assert removed["removed"] == MANY
    reaches(fleet, lambda node: entries(node, "deny") == before, "their removal")


def test_an_answer_and_the_origin_reach_all_and_go_back_to_the_default(fleet):
    def bodies(node):
        return node.ask("GET", "/v1/answers/sold_out")["body"], node.ask("GET", "/v1/answers")["cors_origin"]
    default = bodies(fleet[1])
    fleet[1].ask("PUT", "/v1/answers/sold_out", {"body": "gone\n", "content_type": "text/plain", "headers": {"X-Shop": "drop"}})
    fleet[2].ask("PUT", "/v1/answers", {"cors_origin": "https://shop.example"})
    reaches(fleet, lambda node: bodies(node) == ("gone\n", "https://shop.example"), "an answer and the origin")
    fleet[3].ask("DELETE", "/v1/answers/sold_out")
    fleet[3].ask("PUT", "/v1/answers", {"cors_origin": None})
    reaches(fleet, lambda node: bodies(node) == default, "the defaults")


def test_a_sale_is_made_paused_changed_and_ended_on_any_node(fleet):
    sale = fleet[2].sale(stock=30, slug="everywhere", per_buyer=2)
    reaches(fleet, lambda node: node.control("GET", sale.path).status == 200, "a sale")
    assert {node.ask("GET", sale.path)["id"] for node in fleet.nodes} == {sale.id}
    fleet[1].ask("POST", f"{sale.path}/pause")
    reaches(fleet, lambda node: node.ask("GET", sale.path)["state"] == "paused", "a pause")
    fleet[3].ask("POST", f"{sale.path}/resume")
    reaches(fleet, lambda node: node.ask("GET", sale.path)["state"] == "open", "its end")
    fleet[1].ask("PUT", sale.path, {"pace_per_second": 7})
    reaches(fleet, lambda node: node.ask("GET", sale.path)["pace_per_second"] == 7, "a pace")
    fleet[2].ask("POST", f"{sale.path}/end")
    reaches(fleet, lambda node: node.ask("GET", sale.path)["state"] == "ended", "the end of the sale")
    assert fleet[3].control("POST", f"{sale.path}/resume").status == 409


def test_the_same_sale_made_again_on_another_node_is_the_same(fleet):
    sale = fleet[1].sale(stock=5, slug="twice")
    body = {"stock": 5, "opens_at": rfc3339(sale.opens_at), "ends_at": rfc3339(sale.ends_at)}
    def again():
        reply = fleet[2].control("PUT", sale.path, body)
        return reply.status == 200 and reply.json()["id"] == sale.id
    wait_until(again, "node 2 answers with the sale of node 1")
    reply = fleet[3].control("PUT", sale.path, {**body, "stock": 6})
    assert reply.status in (409, 503), reply


def test_nothing_is_told_back(fleet):
    """What a node has from another it does not publish."""
    assert_same_everywhere(fleet)
    before = [node.status()["fleet"]["settings"]["published"] for node in fleet.nodes]
    fleet[1].ask("PATCH", "/v1/limits", {"prefix": {"rate": 77.0, "burst": 99}})
    reaches(fleet, lambda node: limit(node, "prefix")["rate"] == 77.0, "a limit")
    assert_same_everywhere(fleet)
    assert [node.status()["fleet"]["settings"]["published"] for node in fleet.nodes] == [before[0] + 1, *before[1:]]


# --- while Redis is away ------------------------------------------------------------------------------------------------
def test_of_two_changes_made_without_redis_one_is_on_both_nodes_afterwards(pair):
    away(pair)
    for number in (1, 2):
        reply = pair[number].ask("PATCH", "/v1/limits", {"source": {"rate": 10.0 * number, "burst": number}})
        assert reply["not_replicated"] is True and reply["source"]["rate"] == 10.0 * number
    reply = pair[1].ask("PUT", "/v1/lists/deny/192.0.2.1/32", {"label": "of node 1"})
    assert reply["not_replicated"] is True
    assert pair[2].ask("PUT", "/v1/answers", {"cors_origin": "https://two.example"})["not_replicated"] is True
    back(pair)
    assert_same_everywhere(pair)
    assert limit(pair[1])["rate"] in (10.0, 20.0)
    assert entry(pair[2], "deny", "192.0.2.1/32"), "the entry has not reached node 2"
    assert pair[1].ask("GET", "/v1/answers")["cors_origin"] == "https://two.example"


def test_a_change_made_without_redis_outlives_the_daemon(pair):
    away(pair)
    assert pair[1].ask("PATCH", "/v1/limits", {"source": {"rate": 33.0, "burst": 3}})["not_replicated"] is True
    assert pair[1].ask("PUT", "/v1/lists/allow/198.51.100.0/24", {})["not_replicated"] is True
    pair[1].daemon.kill()
    pair[1].start_daemon(ready=False)
    back(pair)
    reaches(pair, lambda node: limit(node)["rate"] == 33.0 and entry(node, "allow", "198.51.100.0/24"), "what was set before the crash")


def test_a_sale_cannot_be_made_without_redis_and_is_made_by_the_same_request_later(pair):
    now = time.time()
    body = {"stock": 10, "opens_at": rfc3339(now), "ends_at": rfc3339(now + 3600)}
    away(pair)
    reply = pair[1].control("PUT", "/v1/sales/later", body)
    assert (reply.status, reply.code()) == (503, "fleet_away"), reply
    assert pair[1].control("GET", "/v1/sales/later").status == 404
    back(pair)
    wait_until(lambda: pair[1].control("PUT", "/v1/sales/later", body).status in (200, 201), "the sale is made")
    reaches(pair, lambda node: node.control("GET", "/v1/sales/later").status == 200, "the sale")
    assert_same_everywhere(pair)


def test_a_pause_without_redis_reaches_the_others_when_it_is_back(pair):
    sale = pair.sale(stock=10)
    away(pair)
    assert pair[2].ask("POST", f"{sale.path}/pause")["not_replicated"] is True
    back(pair)
    reaches(pair, lambda node: node.ask("GET", sale.path)["state"] == "paused", "the pause")


# --- who was away, and what Redis loses ---------------------------------------------------------------------------------
def test_who_comes_late_gets_everything(pair):
    sale = pair.sale(stock=10)
    pair[2].kill()
    lines = "".join(f"10.9.{i // 256}.{i % 256},86400\n" for i in range(3000))
    pair[1].control("POST", "/v1/lists/deny?label=feed", raw=lines.encode(), headers={"Content-Type": "text/csv"})
    pair[1].ask("PATCH", "/v1/limits", {"source": {"rate": 21.0, "burst": 12}, "deny": {"shadow": True}})
    pair[1].ask("POST", f"{sale.path}/pause")
    late = pair[1].sale(stock=3, slug="late")
    pair[2].start()
    reaches(pair, lambda node: entries(node, "deny") == 3000 and limit(node)["rate"] == 21.0 and
            node.control("GET", late.path).status == 200 and node.ask("GET", sale.path)["state"] == "paused", "everything")
    assert_same_everywhere(pair)


def test_when_redis_forgets_everything_nothing_is_lost_and_nothing_comes_back(pair):
    sale = pair.sale(stock=10)
    pair[1].ask("PUT", "/v1/lists/deny/192.0.2.1/32", {})
    pair[2].ask("PUT", "/v1/lists/deny/192.0.2.2/32", {})
    pair[2].ask("PATCH", "/v1/limits", {"source": {"rate": 21.0, "burst": 12}})
    reaches(pair, lambda node: entries(node, "deny") == 2, "two entries")
    pair[1].ask("DELETE", "/v1/lists/deny/192.0.2.2/32")
    reaches(pair, lambda node: entries(node, "deny") == 1, "the removal of one")
    before = all_settings(pair[1])
    pair.hub.flush()
    values = f"{pair[1].settings['fleet.prefix']}:{{fleet}}:settings:values"
    took = until(lambda: pair.hub.call("HLEN", values) >= 4, "Redis has them again")
    print(f"\nRedis knows everything again after {took * 1000:.0f} ms")
    assert_same_everywhere(pair)
    assert all_settings(pair[1]) == before
    pair[2].ask("POST", f"{sale.path}/pause")
    pair[1].ask("PUT", "/v1/lists/deny/192.0.2.3/32", {})
    reaches(pair, lambda node: entries(node, "deny") == 2 and node.ask("GET", sale.path)["state"] == "paused", "what was set after it")
    assert entry(pair[1], "deny", "192.0.2.2/32") is None


def test_what_was_removed_while_a_node_was_away_does_not_come_back_with_it(pair):
    pair[1].ask("PUT", "/v1/lists/deny/192.0.2.1/32", {})
    reaches(pair, lambda node: entries(node, "deny") == 1, "an entry")
    pair[2].kill()
    pair[1].ask("DELETE", "/v1/lists/deny/192.0.2.1/32")
    pair.hub.flush()
    pair[2].start()
    reaches(pair, lambda node: entries(node, "deny") == 0, "no entry")
    assert_same_everywhere(pair)


def test_what_a_node_had_set_before_it_joined_goes_to_all_unless_the_fleet_has_said_otherwise():
    with Fleet(count=2, start=False) as two:
        newcomer = two[2]
        redis, newcomer.settings["fleet.redis"] = newcomer.settings["fleet.redis"], ""
        newcomer.write_config()
        newcomer.start()
        newcomer.ask("PATCH", "/v1/limits", {"source": {"rate": 5.0, "burst": 5}, "token": {"rate": 6.0, "burst": 6}})
        newcomer.ask("PUT", "/v1/lists/deny/192.0.2.1/32", {})
        own = newcomer.sale(stock=4, slug="own")
        newcomer.stop_programs()
        two[1].start()
        two[1].ask("PATCH", "/v1/limits", {"source": {"rate": 50.0, "burst": 50}})
        past = two[1].sale(stock=4, slug="past")
        two[1].ask("POST", f"{past.path}/end")
        newcomer.settings["fleet.redis"] = redis
        newcomer.write_config()
        newcomer.start()
        reaches(two, lambda node: limit(node)["rate"] == 50.0 and limit(node, "token")["rate"] == 6.0 and entries(node, "deny") == 1,
                "the fleet's limit, and what only the newcomer had")
        assert two[1].control("GET", own.path).status == 404, "a sale of a node alone is not the fleet's"
        fleets = two.sale(stock=4, slug="fleets")
        assert fleets.id > own.id
        shown = newcomer.ask("GET", own.path)
        assert shown["id"] == own.id and shown.get("fleet") is None and shown["stock"] == 4
        newcomer.ask("POST", f"{own.path}/end")
        # A sale that was over before this node heard of it is not made here: it is not on its way either.
        for node in (two[1], newcomer):
            answer = node.control("PUT", past.path, {"stock": 4, "opens_at": "2026-01-01T00:00:00Z", "ends_at": "2036-01-01T00:00:00Z"})
            assert (answer.status, answer.json()["code"]) == (409, "sale_ended"), answer.body


def test_clocks_a_minute_apart_do_no_harm():
    with Fleet(count=2, clocks={2: 60}) as two:
        put = two[1].ask("PUT", "/v1/lists/deny/192.0.2.1/32", {"ttl_seconds": 3600})
        two[2].ask("PATCH", "/v1/limits", {"source": {"rate": 21.0, "burst": 12}})
        reaches(two, lambda node: entries(node, "deny") == 1 and limit(node)["rate"] == 21.0, "both")
        two[1].ask("PATCH", "/v1/limits", {"source": {"rate": 22.0, "burst": 12}})
        reaches(two, lambda node: limit(node)["rate"] == 22.0, "the later change of the slower clock")
        assert entry(two[2], "deny", "192.0.2.1/32")["expires_at"] == put["expires_at"]
