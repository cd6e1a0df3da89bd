# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""What is set at run time (limits, shadow switches, answers, lists) is in the ledger: it outlives each program, and the gate; what is set
while the writer is away is in force at once and written later.
"""
import json
import os
import signal
import sqlite3
import time

import pytest

from netns import wait_until
from world import World, seconds_of

STALL_S = 5  # how long the daemon waits for an answer of the writer


@pytest.fixture()
def shop():
    with World() as shop:
        yield shop


def lose_gate(shop):
    """As after a reboot: nothing of the gate is left, and no program runs."""
    for program in (shop.daemon, shop.writer):
        if program.running():
            program.kill()
    shop.sluice("detach", "--all", "--pin-dir", shop.pin_dir)
    shop.attach()


def reboot(shop):
    lose_gate(shop)
    shop.start_writer()
    shop.start_daemon()


def listens(shop):
    try:
        return shop.control("GET", "/v1/limits").status == 200
    except OSError:
        return False


def restart_daemon(shop):
    shop.daemon.kill()
    shop.start_daemon()


def bring_writer_back(shop):
    shop.start_writer()
    wait_until(lambda: shop.status()["orders_open"], "orders are open")


def restart_writer(shop):
    shop.writer.kill()
    bring_writer_back(shop)


def limits(shop):
    return shop.ask("GET", "/v1/limits")


def put(shop, name, prefix, **fields):
    return shop.ask("PUT", f"/v1/lists/{name}/{prefix.replace('/', '%2F')}", fields)


def entries(shop, name="deny"):
    """{prefix: (label, reason, expires_at)}"""
    page = shop.ask("GET", f"/v1/lists/{name}?limit=1000")
    return {entry["prefix"]: (entry["label"], entry["reason"], entry["expires_at"]) for entry in page["entries"]}


def kept_entries(shop):
    return {(name, prefix) for name, prefix in shop.ledger_query("SELECT list, prefix FROM list_entries")}


def document(shop, name):
    """The ledger's text of that name, or None."""
    rows = shop.ledger_query(f"SELECT value FROM documents WHERE name = '{name}'")
    return rows[0][0] if rows else None


def write_document(shop, name, text):
    """Behind everybody's back; the writer must not run."""
    with sqlite3.connect(shop.ledger) as ledger:
        ledger.execute("INSERT OR REPLACE INTO documents (name, value, changed_ns) VALUES (?, ?, 1)", (name, text))
    ledger.close()


def set_all(shop):
    """One of each. Returns a function that says whether all of it is in force."""
    shop.ask("PATCH", "/v1/limits", {"source": {"rate": 33.3, "burst": 7}, "token": {"shadow": True}, "deny": {"shadow": True}})
    shop.ask("PUT", "/v1/answers/paused", {"body": "later", "content_type": "text/plain"})
    shop.ask("PUT", "/v1/answers", {"cors_origin": "https://operator.example"})
    put(shop, "deny", "192.0.2.0/24", label="feed", reason="ticket 4711", ttl_seconds=3600)
    put(shop, "deny", "2001:db8::/32", reason="no label")
    put(shop, "allow", "198.51.100.7/32", label="office")
    before = (limits(shop), entries(shop), entries(shop, "allow"), shop.ask("GET", "/v1/answers/paused")["http"],
              shop.ask("GET", "/v1/answers")["cors_origin"])

    def assert_all():
        now = (limits(shop), entries(shop), entries(shop, "allow"), shop.ask("GET", "/v1/answers/paused")["http"],
               shop.ask("GET", "/v1/answers")["cors_origin"])
        assert now == before
    assert before[0]["source"] == {"rate": 33.3, "burst": 7, "shadow": False} and before[0]["deny"]["shadow"]
    assert before[1]["192.0.2.0/24"][:2] == ("feed", "ticket 4711") and before[1]["192.0.2.0/24"][2]
    return assert_all


def test_what_was_set_outlives_each_program_and_the_gate(shop):
    assert_all = set_all(shop)
    for happens in (restart_daemon, restart_writer, reboot, restart_daemon, reboot):
        happens(shop)
        assert_all()


def test_a_success_is_in_the_ledger_when_it_is_said(shop):
    """Killed with no time to write anything: what was answered is there."""
    shop.ask("PATCH", "/v1/limits", {"prefix": {"rate": 11, "burst": 12}})
    assert json.loads(document(shop, "limits"))["prefix"] == {"rate": 11.0, "burst": 12}
    put(shop, "deny", "192.0.2.1/32", label="a")
    assert kept_entries(shop) == {("deny", "192.0.2.1/32")}
    shop.ask("PUT", "/v1/answers/paused", {"body": "{}"})
    assert json.loads(document(shop, "answers"))["answers"]["paused"] == {"body": "{}"}
    assert shop.control("DELETE", "/v1/lists/deny/192.0.2.1%2F32").status == 204
    assert kept_entries(shop) == set()


def test_what_was_set_while_the_writer_was_away_is_in_force_at_once_and_arrives_later(shop):
    put(shop, "deny", "192.0.2.1/32", label="old")
    put(shop, "deny", "192.0.2.2/32", label="gone")
    shop.writer.kill()
    wait_until(lambda: not shop.status()["writer"]["connected"], "the daemon sees it")
    assert "order writer is away" in shop.cli("limit", "set", "prefix", "9").stderr
    answers = [
        shop.ask("PATCH", "/v1/limits", {"source": {"rate": 5, "burst": 6}}),
        shop.ask("PUT", "/v1/answers/paused", {"body": "{}"}),
        put(shop, "deny", "203.0.113.0/24", label="flood"),
        shop.ask("DELETE", "/v1/lists/deny/192.0.2.1%2F32"),
        shop.ask("DELETE", "/v1/lists/deny?label=gone"),
        shop.ask("POST", "/v1/lists/deny", {"entries": [{"prefix": "203.0.113.9/32"}], "label": "bulk"}),
    ]
    assert all(answer["not_durable"] is True for answer in answers), answers
    assert limits(shop)["source"] == {"rate": 5.0, "burst": 6, "shadow": False}
    assert "not_durable" not in limits(shop)
    wanted = {"203.0.113.0/24", "203.0.113.9/32"}
    assert set(entries(shop)) == wanted

    bring_writer_back(shop)
    wait_until(lambda: kept_entries(shop) == {("deny", prefix) for prefix in wanted}, "the lists are in the ledger")
    wait_until(lambda: "paused" in (document(shop, "answers") or ""), "the answer is")
    wait_until(lambda: "source" in (document(shop, "limits") or ""), "the limit is")
    assert "not_durable" not in put(shop, "deny", "203.0.113.10/32")
    assert "away" not in shop.cli("deny", "labels").stderr
    reboot(shop)
    assert limits(shop)["source"]["burst"] == 6
    assert set(entries(shop)) == wanted | {"203.0.113.10/32"}
    assert shop.ask("GET", "/v1/answers/paused")["body"] == "{}"


def test_a_writer_that_stands_still_keeps_one_change_waiting_and_no_more(shop):
    put(shop, "deny", "192.0.2.1/32", label="before")
    os.kill(shop.writer.pid, signal.SIGSTOP)
    try:
        assert put(shop, "deny", "203.0.113.1/32")["not_durable"]  # waited for
        begun = os.times().elapsed
        for n in range(2, 22):
            assert put(shop, "deny", f"203.0.113.{n}/32")["not_durable"]
            assert shop.ask("PATCH", "/v1/limits", {"source": {"rate": n, "burst": 6}})["not_durable"]
        assert os.times().elapsed - begun < 4 * STALL_S, "each of them waited"
        assert len(entries(shop)) == 22 and limits(shop)["source"]["rate"] == 21
    finally:
        os.kill(shop.writer.pid, signal.SIGCONT)
    wait_until(lambda: len(kept_entries(shop)) == 22, "the lists are in the ledger")
    wait_until(lambda: json.loads(document(shop, "limits") or "{}").get("source", {}).get("rate") == 21, "the limit is")
    wait_until(lambda: "not_durable" not in put(shop, "deny", "203.0.113.1/32"), "changes are durable again")


def test_a_daemon_that_was_killed_while_the_writer_was_away_has_lost_nothing(shop):
    of_config = limits(shop)["prefix"]
    shop.ask("PATCH", "/v1/limits", {"prefix": {"rate": 9, "burst": 9}})
    shop.ask("PUT", "/v1/answers/paused", {"body": "{ }"})
    put(shop, "deny", "192.0.2.1/32", label="old")
    shop.writer.kill()
    wait_until(lambda: not shop.status()["writer"]["connected"], "the daemon sees it")
    shop.ask("PATCH", "/v1/limits", {"source": {"rate": 5, "burst": 6}, "prefix": of_config})
    shop.ask("PUT", "/v1/answers/paused", {"body": "{}"})
    shop.ask("DELETE", "/v1/lists/deny/192.0.2.1%2F32")
    put(shop, "allow", "203.0.113.1/32", label="new")
    shop.daemon.kill()
    shop.start_writer()
    shop.start_daemon()
    wait_until(lambda: kept_entries(shop) == {("allow", "203.0.113.1/32")}, "the lists are in the ledger")
    wait_until(lambda: set(json.loads(document(shop, "limits"))) == {"version", "source"}, "the limits are")
    wait_until(lambda: json.loads(document(shop, "answers"))["answers"]["paused"]["body"] == "{}", "the answer is")
    assert limits(shop)["prefix"] == of_config
    reboot(shop)
    assert limits(shop)["prefix"] == of_config
    assert limits(shop)["source"]["burst"] == 6 and entries(shop) == {} and set(entries(shop, "allow")) == {"203.0.113.1/32"}
    assert shop.ask("GET", "/v1/answers/paused")["body"] == "{}"


def test_what_is_set_on_a_new_gate_before_the_writer_is_there_counts_and_the_rest_comes_from_the_ledger(shop):
    """An attack right after a reboot, with the writer down."""
    shop.ask("PATCH", "/v1/limits", {"source": {"rate": 5, "burst": 6}, "prefix": {"rate": 7, "burst": 8}, "pace": {"shadow": True}})
    put(shop, "deny", "192.0.2.1/32", label="kept")
    put(shop, "deny", "192.0.2.2/32", label="kept", reason="of before")
    put(shop, "deny", "192.0.2.3/32", label="kept", reason="of before")
    lose_gate(shop)
    shop.start_daemon(ready=False)
    wait_until(lambda: listens(shop), "the daemon listens")
    assert limits(shop)["prefix"]["burst"] != 8 and entries(shop) == {}
    assert shop.ask("PATCH", "/v1/limits", {"source": {"rate": 1, "burst": 2}})["not_durable"]
    put(shop, "deny", "192.0.2.2/32", label="new")
    put(shop, "deny", "192.0.2.3/32", label="kept", reason="of now")
    put(shop, "deny", "203.0.113.0/24", label="new")
    shop.start_writer()
    shop.wait_ready()
    now = limits(shop)
    assert (now["source"]["burst"], now["prefix"]["burst"], now["pace"]["shadow"]) == (2, 8, True)
    assert {prefix: entry[0] for prefix, entry in entries(shop).items()} == {
        "192.0.2.1/32": "kept", "192.0.2.2/32": "new", "192.0.2.3/32": "kept", "203.0.113.0/24": "new"}
    assert entries(shop)["192.0.2.3/32"][1] == "of now"
    wait_until(lambda: ("deny", "203.0.113.0/24") in kept_entries(shop), "the ledger follows")
    wait_until(lambda: json.loads(document(shop, "limits"))["source"]["burst"] == 2, "the ledger follows")
    reboot(shop)
    assert limits(shop) == now and entries(shop)["192.0.2.2/32"][0] == "new"


def test_what_is_set_back_to_the_configs_value_is_the_configs_again(shop):
    before = limits(shop)["source"]
    shop.ask("PATCH", "/v1/limits", {"source": {"rate": 5, "burst": 6}})
    shop.ask("PATCH", "/v1/limits", {"source": {"rate": before["rate"], "burst": before["burst"]}})
    assert json.loads(document(shop, "limits")) == {"version": 1}
    shop.settings["limits.source"] = {"rate": 77.0, "burst": 78}
    shop.write_config()
    reboot(shop)
    assert limits(shop)["source"] == {"rate": 77.0, "burst": 78, "shadow": False}


def test_undo_after_a_reboot_takes_back_the_import_of_before(shop):
    listed = shop.dir / "feed.netset"
    listed.write_text("".join(f"10.9.{n // 256}.{n % 256}\n" for n in range(2500)), encoding="ascii")
    shop.cli("deny", "import", listed, "--label", "feed")
    put(shop, "deny", "192.0.2.0/24", label="mine")
    assert len(kept_entries(shop)) == 2501
    reboot(shop)
    assert shop.ask("GET", "/v1/lists/deny")["total"] == 2501
    shop.cli("deny", "undo", "feed")
    assert set(entries(shop)) == {"192.0.2.0/24"} and kept_entries(shop) == {("deny", "192.0.2.0/24")}
    reboot(shop)
    assert set(entries(shop)) == {"192.0.2.0/24"}


def test_what_expired_while_the_machine_was_down_is_left_out_and_leaves_the_ledger(shop):
    put(shop, "deny", "192.0.2.1/32", label="short", ttl_seconds=1)
    put(shop, "deny", "192.0.2.2/32", label="long", ttl_seconds=3600)
    until = entries(shop)["192.0.2.2/32"][2]
    lose_gate(shop)
    wait_until(lambda: time.time() > seconds_of(until) - 3598, "the first one's time is over")
    shop.start_writer()
    shop.start_daemon()
    assert entries(shop) == {"192.0.2.2/32": ("long", "long", until)}
    wait_until(lambda: kept_entries(shop) == {("deny", "192.0.2.2/32")}, "it is out of the ledger")


def test_hits_of_the_pinned_gate_stay_when_the_daemon_comes_back(shop):
    source = shop.source()
    put(shop, "deny", f"{source}/32", label="x")
    with pytest.raises((OSError, AssertionError)):
        with shop.socket(source=source) as sock:
            sock.settimeout(1)
            sock.connect(("10.71.0.1", 8080))
    def hits():
        return shop.ask("GET", "/v1/lists/deny")["entries"][0]["hits"]
    before = hits()
    assert before
    restart_daemon(shop)
    assert hits() >= before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version":2}', '{"version":1,"nonsense":{"rate":1,"burst":1}}',
                                  '{"version":1,"source":{"rate":-1,"burst":1}}', '{"version":1,"source":{"rate":9}}',
                                  '{"version":1,"pace":{"rate":1,"burst":1}}'], ids=range(8))
def test_limits_of_the_ledger_that_cannot_be_read_are_put_aside_and_the_configs_are_in_force(shop, text):
    before = limits(shop)
    shop.ask("PATCH", "/v1/limits", {"source": {"rate": 5, "burst": 6}})
    lose_gate(shop)
    write_document(shop, "limits", text)
    shop.start_writer()
    shop.start_daemon()
    assert limits(shop) == before
    assert "the ledger's limits are not in force" in shop.daemon.log()
    assert document(shop, "limits.rejected") == text
    shop.ask("PATCH", "/v1/limits", {"source": {"rate": 5, "burst": 6}})
    reboot(shop)
    assert limits(shop)["source"]["burst"] == 6


@pytest.mark.parametrize("text", ["{", '{"version":1,"answers":{"gone":{"body":"{}"}}}'], ids=range(2))
def test_answers_of_the_ledger_that_cannot_be_read_are_put_aside_and_the_copy_is_in_force(shop, text):
    shop.ask("PUT", "/v1/answers/paused", {"body": "{}"})
    lose_gate(shop)
    write_document(shop, "answers", text)
    shop.start_writer()
    shop.start_daemon()
    assert "the ledger's answers are not in force" in shop.daemon.log()
    assert document(shop, "answers.rejected") == text
    assert shop.ask("GET", "/v1/answers/paused")["body"] == "{}"
    wait_until(lambda: document(shop, "answers") != text, "the ledger has the copy's")


def test_answers_come_from_the_ledger_where_the_copy_is_lost(shop):
    shop.ask("PUT", "/v1/answers/paused", {"body": "{}"})
    lose_gate(shop)
    (shop.state_dir / "answers.json").unlink()
    shop.start_writer()
    shop.start_daemon()
    assert shop.ask("GET", "/v1/answers/paused")["body"] == "{}"
    assert json.loads((shop.state_dir / "answers.json").read_text(encoding="utf-8"))["answers"]["paused"] == {"body": "{}"}


def test_a_file_of_answers_of_before_comes_into_a_ledger_that_has_none():
    with World(start=("gate", "writer")) as shop:
        (shop.state_dir / "answers.json").write_text('{"version":1,"answers":{"paused":{"body":"{}"}}}', encoding="utf-8")
        shop.start_daemon()
        wait_until(lambda: document(shop, "answers"), "the ledger has it")
        assert json.loads(document(shop, "answers"))["answers"] == {"paused": {"body": "{}"}}
        assert shop.ask("GET", "/v1/answers/paused")["source"] == "operator"


def test_an_entry_of_the_ledger_that_no_gate_could_match_is_passed_over(shop):
    put(shop, "deny", "192.0.2.1/32", label="good")
    lose_gate(shop)
    with sqlite3.connect(shop.ledger) as ledger:
        ledger.execute("INSERT INTO list_entries (list, prefix, expires_ns, label, reason) VALUES ('deny', '192.0.2.77/24', 0, '', '')")
    ledger.close()
    shop.start_writer()
    shop.start_daemon()
    assert set(entries(shop)) == {"192.0.2.1/32"} and "passed over" in shop.daemon.log()
    wait_until(lambda: kept_entries(shop) == {("deny", "192.0.2.1/32")}, "it is out of the ledger")


def test_lists_that_do_not_fit_a_smaller_gate_stay_whole_in_the_ledger(shop):
    listed = shop.dir / "feed.netset"
    listed.write_text("".join(f"10.9.{n // 256}.{n % 256}\n" for n in range(3000)), encoding="ascii")
    shop.cli("deny", "import", listed, "--label", "feed")
    shop.settings["gate.max_prefixes"] = 2048
    shop.write_config()
    reboot(shop)
    assert "do not fit the gate's map" in shop.daemon.log()
    assert 0 < shop.ask("GET", "/v1/lists/deny")["total"] <= 2048
    shop.ask("DELETE", f"/v1/lists/deny/{next(iter(entries(shop))).replace('/', '%2F')}")
    assert len(kept_entries(shop)) == 2999
    # The comparison of gate and ledger writes what the gate has more, and takes nothing away.
    shop.writer.kill()
    wait_until(lambda: not shop.status()["writer"]["connected"], "the daemon sees it")
    put(shop, "allow", "192.0.2.1/32")
    bring_writer_back(shop)
    wait_until(lambda: ("allow", "192.0.2.1/32") in kept_entries(shop), "they were compared")
    assert len(kept_entries(shop)) == 3000
    shop.settings["gate.max_prefixes"] = 4096
    shop.write_config()
    reboot(shop)
    assert shop.ask("GET", "/v1/lists/deny")["total"] == 2999
