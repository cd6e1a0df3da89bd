# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Lists at scale: files into a list and out again, labels and undo, all or nothing, and that orders go on meanwhile."""
import ipaddress
import json
import socket
import threading
import time

import pytest

from netns import wait_until
from world import PORT, SHOP, World

OK, FAILED, USAGE, NOT_FOUND = 0, 1, 2, 3
ROOM = 4096  # gate.max_prefixes of world.DEFAULTS


@pytest.fixture
def clean(world):
    """The shop, with empty lists before and after."""
    empty(world)
    yield world
    empty(world)


def empty(world):
    for name in ("deny", "allow"):
        for entry in entries_of(world, name):
            world.ask("DELETE", f"/v1/lists/{name}/{entry['prefix']}", expect=(204, 404))


def entries_of(world, name="deny", query=""):
    found, after = [], ""
    while True:
        page = world.ask("GET", f"/v1/lists/{name}?limit=1000{query}{after}")
        found += page["entries"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def prefixes_of(world, name="deny", query=""):
    return sorted(entry["prefix"] for entry in entries_of(world, name, query))


def can_connect(world, family, source):
    with world.socket(family, source) as sock:
        sock.settimeout(0.4)
        try:
            sock.connect((SHOP[family], PORT))
            return True
        except (TimeoutError, socket.timeout):
            return False


def file_of(world, text, name="feed.netset"):
    path = world.dir / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def imported(world, text, *args, noun="deny", name="feed.netset", check=True):
    done = world.cli(noun, "import", file_of(world, text, name), *args, "-o", "json", check=check)
    return json.loads(done.stdout) if done.returncode == OK else done


def post(world, body=None, raw=None, query="", name="deny", content_type=None):
    headers = {"Content-Type": content_type} if content_type else None
    return world.control("POST", f"/v1/lists/{name}{query}", body, raw, headers)


def assert_problem(reply, status, code, field=None):
    problem = reply.json()
    assert (reply.status, problem["code"]) == (status, code), reply
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    if field:
        assert problem["field"] == field, problem
    return problem


def hosts(first, count):
    """`count` addresses of 10.0.0.0/8 from the given one on, a line each."""
    start = int(ipaddress.ip_address("10.0.0.0")) + first
    return "".join(f"{ipaddress.ip_address(start + n)}\n" for n in range(count))


def bits_in_index(world):
    return sum(any(value) for _, value in world.map_dump("list_index"))


# --- what goes in ----------------------------------------------------------------------------------------------------------
def test_a_netset_is_in_force_when_the_command_returns(clean, family):
    denied, other = clean.source(family), clean.source(family)
    assert can_connect(clean, family, denied)
    done = imported(clean, f"# a feed\n{denied}\n\n198.51.100.0/24 ; SBL1\n192.0.2.1-192.0.2.2\n")
    assert (done["entries"], done["added"], done["label"], done["dry_run"]) == (4, 4, "feed.netset", False)
    assert not can_connect(clean, family, denied) and can_connect(clean, family, other)
    assert {entry["label"] for entry in entries_of(clean)} == {"feed.netset"}
    assert json.loads(clean.cli("deny", "undo", "feed.netset", "-o", "json").stdout) == {"removed": 4}
    assert can_connect(clean, family, denied)
    assert entries_of(clean) == []
    assert clean.cli("deny", "undo", "feed.netset", check=False).returncode == NOT_FOUND


def test_what_ipset_saves_goes_in_with_its_times_and_comments(clean):
    text = ("create bl hash:net family inet hashsize 1024 maxelem 65536 timeout 600\n"
            "add bl 192.0.2.0/24 timeout 300 comment \"port scan\"\nadd bl 198.51.100.7 timeout 0\n")
    imported(clean, text, "--label", "ipset")
    found = {entry["prefix"]: entry for entry in entries_of(clean)}
    assert found["192.0.2.0/24"]["reason"] == "port scan" and found["192.0.2.0/24"]["label"] == "ipset"
    assert found["192.0.2.0/24"]["expires_at"] and found["198.51.100.7/32"]["expires_at"] is None


def test_an_import_has_a_time_and_entries_have_their_own(clean):
    imported(clean, "192.0.2.0/24,7200,own\n198.51.100.0/24,,\n", "--ttl", "1h", name="list.csv")
    times = {entry["prefix"]: entry["expires_at"] for entry in entries_of(clean)}
    assert all(times.values()) and times["192.0.2.0/24"] > times["198.51.100.0/24"]
    done = imported(clean, "192.0.2.9,2020-01-01T00:00:00Z,past\n", name="list.csv")
    assert (done["added"], done["expired"]) == (0, 1)
    assert len(entries_of(clean)) == 2


def test_standard_input_can_be_the_file(clean):
    done = clean.cli("allow", "import", "-", "-o", "json", input="192.0.2.0/24\n")
    assert json.loads(done.stdout)["label"].startswith("import-20")
    assert prefixes_of(clean, "allow") == ["192.0.2.0/24"] and entries_of(clean, "deny") == []


def test_a_bad_line_is_named_and_nothing_is_applied(clean):
    text = "192.0.2.0/24\n192.0.2.1/24\nnonsense\n198.51.100.0/24\n"
    done = imported(clean, text, check=False)
    assert done.returncode == USAGE
    assert 'feed.netset:2: "192.0.2.1/24"' in done.stderr and 'feed.netset:3: "nonsense"' in done.stderr
    assert "nothing was applied" in done.stderr
    assert entries_of(clean) == []
    done = imported(clean, text, "--skip-bad")
    assert (done["added"], done["bad_lines"]) == (2, 2)
    assert prefixes_of(clean) == ["192.0.2.0/24", "198.51.100.0/24"]


def test_a_file_that_is_not_there_or_empty_is_an_error(clean):
    done = clean.cli("deny", "import", clean.dir / "nowhere", check=False)
    assert done.returncode == FAILED and "No such file" in done.stderr
    assert imported(clean, "# nothing\n", check=False).returncode == USAGE


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "10.0.0.0/7", "2000::/3", "0.0.0.0-255.255.255.255", "::/1"])
def test_what_is_far_too_wide_needs_force(clean, prefix):
    done = imported(clean, f"192.0.2.0/24\n{prefix}\n", check=False)
    assert done.returncode == USAGE and "--force" in done.stderr and ":2:" in done.stderr
    assert entries_of(clean) == []
    reply = post(clean, raw=f"192.0.2.0/24\n{prefix}\n".encode(), content_type="text/plain")
    assert_problem(reply, 422, "too_wide", "line 2")
    if "-" not in prefix:
        assert_problem(post(clean, {"entries": [{"prefix": prefix}]}), 422, "too_wide", "entries[0]")
        # On the allow list, which is not asked before the deny list here: nobody is cut off by this test.
        assert post(clean, {"entries": [{"prefix": prefix}], "force": True, "dry_run": True}).json()["added"] == 1
    assert entries_of(clean) == []


def test_a_dry_run_says_what_would_be_done(clean):
    imported(clean, "192.0.2.0/24\n", "--label", "one")
    done = imported(clean, "192.0.2.0/24\n198.51.100.0/24\n198.51.100.0/24\n", "--label", "two", "--dry-run")
    assert (done["added"], done["kept"], done["duplicates"], done["dry_run"]) == (1, 1, 1, True)
    assert prefixes_of(clean) == ["192.0.2.0/24"]


# --- labels ------------------------------------------------------------------------------------------------------------------
def test_a_label_takes_back_what_it_put_and_nothing_else(clean):
    clean.ask("PUT", "/v1/lists/deny/192.0.2.0/24", {"reason": "by hand"})
    imported(clean, "192.0.2.0/24\n198.51.100.0/24\n203.0.113.0/24\n", "--label", "feed")
    assert prefixes_of(clean, query="&label=feed") == ["198.51.100.0/24", "203.0.113.0/24"], "the one by hand was kept"
    imported(clean, "203.0.113.0/24\n", "--label", "ticket 7", "--replace")
    labels = {row["label"]: row["entries"] for row in clean.ask("GET", "/v1/lists/deny/labels")["labels"]}
    assert labels == {"by hand": 1, "feed": 1, "ticket 7": 1}
    table = clean.cli("deny", "labels").stdout
    assert "ticket 7" in table and "LABEL" in table
    assert "203.0.113.0/24" in clean.cli("deny", "list", "--label", "ticket 7").stdout
    clean.cli("deny", "undo", "feed")
    assert prefixes_of(clean) == ["192.0.2.0/24", "203.0.113.0/24"]


def test_the_same_feed_again_refreshes_and_lets_go_of_what_is_gone(clean):
    """How a feed is kept up to date: each load gives it some days, so what is no longer in it goes by itself."""
    imported(clean, "192.0.2.0/24\n198.51.100.0/24\n", "--label", "feed", "--ttl", "1h")
    before = {entry["prefix"]: entry["expires_at"] for entry in entries_of(clean)}
    time.sleep(0.05)
    done = imported(clean, "192.0.2.0/24\n203.0.113.0/24\n", "--label", "feed", "--ttl", "1h")
    assert (done["added"], done["refreshed"]) == (1, 1)
    after = {entry["prefix"]: entry["expires_at"] for entry in entries_of(clean)}
    assert after["192.0.2.0/24"] > before["192.0.2.0/24"] and after["198.51.100.0/24"] == before["198.51.100.0/24"]


def test_hits_outlive_a_refresh(clean):
    source = clean.source()
    imported(clean, f"{source}\n", "--label", "feed")
    assert not can_connect(clean, "ipv4", source)
    hits = entries_of(clean)[0]["hits"]
    assert hits >= 1
    imported(clean, f"{source}\n", "--label", "feed", "--ttl", "1h")
    assert entries_of(clean)[0]["hits"] >= hits


def test_what_is_exported_can_be_imported_again(clean):
    clean.ask("PUT", "/v1/lists/deny/192.0.2.0/24", {"reason": 'a "bad", one', "ttl_seconds": 3600})
    clean.ask("PUT", "/v1/lists/deny/2001:db8::/32")
    imported(clean, "198.51.100.0/24,,\"scan, again\"\n", "--label", "fêed", name="list.csv")
    imported(clean, hosts(0, 1500), "--label", "many")
    def all_of_it():
        return sorted((e["prefix"], e["label"], e["reason"], e["expires_at"]) for e in entries_of(clean))
    before = all_of_it()
    saved = clean.cli("deny", "export").stdout
    plain = clean.cli("deny", "export", "--format", "netset", "--label", "many").stdout
    assert sorted(plain.split()) == sorted(f"{host}/32" for host in hosts(0, 1500).split())
    empty(clean)
    nothing = clean.cli("deny", "export").stdout
    assert nothing.count("\n") == 1 and imported(clean, nothing, name="empty.csv")["entries"] == 0
    done = imported(clean, saved, name="saved.csv")
    assert done["added"] == len(before) and all_of_it() == before


def test_what_may_be_put_comes_back_from_an_export(clean):
    """Wide prefixes, and every text that the API takes; those that a line of an export could not hold are refused."""
    for name in ("deny", "allow"):
        clean.ask("PUT", f"/v1/lists/{name}/128.0.0.0/1", {"reason": "half of it"})
        clean.ask("PUT", f"/v1/lists/{name}/2000::/3", {"label": '"', "reason": " a, b "})
        for text in ("two\nlines", "tab\there", "\x7f", "cr\r"):
            for field in ("label", "reason"):
                answer = clean.control("PUT", f"/v1/lists/{name}/192.0.2.1", {field: text})
                assert_problem(answer, 422, "out_of_range", field)
                answer = post(clean, {"entries": [{"prefix": "192.0.2.1", field: text}]}, name=name)
                assert_problem(answer, 422, "out_of_range", f"entries[0].{field}")
            assert_problem(post(clean, {"entries": [], "label": text}, name=name), 422, "out_of_range", "label")
    def all_of_it(name):
        return sorted((e["prefix"], e["label"], e["reason"], e["expires_at"]) for e in entries_of(clean, name))
    before = {name: all_of_it(name) for name in ("deny", "allow")}
    saved = {name: clean.cli(name, "export").stdout for name in before}
    empty(clean)
    for name in before:
        done = imported(clean, saved[name], noun=name, name="saved.csv", check=False)
        assert done.returncode == USAGE and "--force" in done.stderr, done
        assert imported(clean, saved[name], "--force", noun=name, name="saved.csv")["added"] == 2
        assert all_of_it(name) == before[name]


def test_a_page_goes_on_where_entries_went_meanwhile(clean):
    imported(clean, hosts(0, 900))
    found, after = [], ""
    while after is not None:
        page = clean.ask("GET", "/v1/lists/deny?limit=100" + (f"&after={after}" if after else ""))
        assert len(page["entries"]) <= 100
        for entry in page["entries"]:
            found.append(entry["prefix"])
            clean.ask("DELETE", f"/v1/lists/deny/{entry['prefix']}")
        after = page["next"]
    assert len(found) == len(set(found)) == 900


# --- all or nothing ------------------------------------------------------------------------------------------------------------
def test_a_list_that_does_not_fit_is_refused_whole(clean):
    imported(clean, hosts(0, ROOM - 10), "--label", "first")
    done = imported(clean, hosts(100000, 11), "--label", "second", check=False)
    assert done.returncode == FAILED and "11 entries need room and 10 fit" in done.stderr and "list_full" in done.stderr
    problem = assert_problem(post(clean, raw=hosts(100000, 11).encode(), content_type="text/plain"), 507, "list_full")
    assert (problem["needed"], problem["room"]) == (11, 10)
    assert len(entries_of(clean)) == ROOM - 10
    page = clean.ask("GET", "/v1/lists/deny?limit=1")
    assert (page["total"], page["room"]) == (ROOM - 10, 10)
    assert imported(clean, hosts(0, ROOM - 10), "--label", "first")["refreshed"] == ROOM - 10, "what is there needs no room"
    assert imported(clean, hosts(100000, 10), "--label", "second")["added"] == 10
    assert_problem(clean.control("PUT", "/v1/lists/deny/192.0.2.1"), 507, "list_full")
    clean.cli("deny", "undo", "first")
    clean.cli("deny", "undo", "second")
    assert bits_in_index(clean) == 0


def test_a_full_list_whose_entries_expired_takes_new_ones(clean, family):
    """The sweeper and the reuse of slots, with time really passing."""
    source = clean.source(family)
    imported(clean, hosts(0, ROOM - 1) + f"{source}\n", "--ttl", "3s", "--label", "short")
    assert not can_connect(clean, family, source)
    assert_problem(clean.control("PUT", "/v1/lists/deny/192.0.2.1"), 507, "list_full")
    wait_until(lambda: not entries_of(clean), "the entries expire", timeout=10)
    assert can_connect(clean, family, source)
    done = imported(clean, hosts(50000, ROOM - 1) + f"{source}\n", "--label", "long")
    assert done["added"] == ROOM and clean.ask("GET", "/v1/lists/deny?limit=1")["room"] == 0
    assert not can_connect(clean, family, source)
    clean.cli("deny", "undo", "long")
    assert can_connect(clean, family, source) and bits_in_index(clean) == 0


def test_expired_entries_make_room_for_an_import_in_several_pieces():
    """Each piece fits for itself; all of them fit only where expired entries are."""
    with World({"gate.max_prefixes": 262144}) as shop:
        imported(shop, hosts(0, 160000), "--label", "old", "--ttl", "1s")
        time.sleep(1.1)
        assert imported(shop, hosts(300000, 190000), "--label", "new")["added"] == 190000


def test_the_sweeper_clears_entries_and_index_by_itself(clean):
    imported(clean, hosts(0, 1000) + "172.16.0.0/12\n2001:d00::/24\n", "--ttl", "1s")
    imported(clean, "192.0.2.0/24\n", "--label", "stays")
    assert clean.ask("GET", "/v1/lists/deny?limit=1")["total"] == 1003
    wait_until(lambda: clean.ask("GET", "/v1/lists/deny?limit=1")["total"] == 1, "the sweeper takes what expired", timeout=15)
    assert len(clean.map_dump("lists")) == 1 and bits_in_index(clean) == 1


# --- the API -------------------------------------------------------------------------------------------------------------------
def test_json_puts_many_with_their_own_times_labels_and_reasons(clean):
    reply = post(clean, {"label": "api", "ttl_seconds": 600, "entries": [
        {"prefix": "192.0.2.0/24"}, {"prefix": "198.51.100.7", "ttl_seconds": 5, "reason": "scan"},
        {"prefix": "2001:db8::/32", "expires_at": "2036-01-01T00:00:00Z", "label": "other"}]})
    assert reply.status == 200
    assert reply.json() == {"entries": 3, "added": 3, "refreshed": 0, "replaced": 0, "kept": 0, "duplicates": 0,
                            "expired": 0, "needed": 3, "room": ROOM - 3, "dry_run": False}
    found = {entry["prefix"]: entry for entry in entries_of(clean)}
    assert (found["198.51.100.7/32"]["label"], found["198.51.100.7/32"]["reason"]) == ("api", "scan")
    assert found["2001:db8::/32"]["label"] == "other" and found["2001:db8::/32"]["expires_at"] == "2036-01-01T00:00:00Z"
    assert found["192.0.2.0/24"]["reason"] == "api" and found["192.0.2.0/24"]["expires_at"]
    assert clean.control("DELETE", "/v1/lists/deny?label=api").json() == {"removed": 2}


@pytest.mark.parametrize("body, status, code, field", [
    ({}, 400, "missing_field", "entries"),
    ({"entries": {}}, 400, "wrong_type", "entries"),
    ({"entries": ["192.0.2.1"]}, 400, "wrong_type", "entries[0]"),
    ({"entries": [{"prefix": "192.0.2.1"}, {}]}, 400, "missing_field", "entries[1].prefix"),
    ({"entries": [{"prefix": "192.0.2.1"}, {"prefix": "192.0.2.1/24"}]}, 422, "bad_entry", "entries[1]"),
    ({"entries": [{"prefix": "192.0.2.1", "ttl": 5}]}, 400, "unknown_field", "entries[0].ttl"),
    ({"entries": [{"prefix": "192.0.2.1", "ttl_seconds": 0}]}, 422, "out_of_range", "entries[0].ttl_seconds"),
    ({"entries": [{"prefix": "192.0.2.1", "ttl_seconds": 5, "expires_at": "2036-01-01T00:00:00Z"}]}, 422, "bad_entry", None),
    ({"entries": [], "colour": 1}, 400, "unknown_field", "colour"),
    ({"entries": [], "replace": 1}, 400, "wrong_type", "replace"),
    ({"entries": [], "label": "x" * 32}, 422, "out_of_range", "label"),
    ({"entries": [], "ttl_seconds": -1}, 422, "out_of_range", "ttl_seconds"),
], ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "")
def test_a_document_that_cannot_be_changes_nothing(clean, body, status, code, field):
    assert_problem(post(clean, body), status, code, field)
    assert entries_of(clean) == []


def test_lines_go_in_as_text_or_csv_with_options_in_the_query(clean):
    reply = post(clean, raw=b"192.0.2.0/24\n# x\n198.51.100.1-198.51.100.2\n", content_type="text/plain",
                 query="?label=t%20x&ttl_seconds=600")
    assert reply.json()["added"] == 3
    reply = post(clean, raw=b"prefix,reason\n203.0.113.0/24,why\n", content_type="text/csv; charset=utf-8", query="?label=c")
    assert reply.json()["added"] == 1
    found = {entry["prefix"]: entry for entry in entries_of(clean)}
    assert found["198.51.100.2/31" if "198.51.100.2/31" in found else "198.51.100.2/32"]["label"] == "t x"
    assert (found["203.0.113.0/24"]["label"], found["203.0.113.0/24"]["reason"]) == ("c", "why")
    assert found["192.0.2.0/24"]["expires_at"] and found["203.0.113.0/24"]["expires_at"] is None
    for query, status, code in (("?lable=x", 400, "unknown_field"), ("?replace=1", 422, "out_of_range"),
                                ("?label=" + "x" * 32, 422, "out_of_range"), ("?ttl_seconds=0", 422, "out_of_range"),
                                ("?ttl_seconds=5x", 422, "out_of_range"), ("?label=%01", 422, "out_of_range")):
        assert_problem(post(clean, raw=b"192.0.2.9\n", content_type="text/plain", query=query), status, code)
    assert_problem(post(clean, {"entries": []}, query="?label=x"), 400, "unknown_field", "label")
    problem = assert_problem(post(clean, raw=b"192.0.2.9\n192.0.2.\xff\n", content_type="text/plain"), 422, "bad_entry")
    assert problem["field"] == "line 2"
    assert_problem(post(clean, raw=b"192.0.2.9\n", content_type="text/html"), 415, "unsupported_type")
    assert_problem(post(clean, raw=b"192.0.2.9\n", content_type="text/plain", name="block"), 404, "not_found")
    assert len(found) == len(entries_of(clean))


def test_ranges_that_are_too_many_prefixes_are_refused_whole(clean):
    # Each line is 113 prefixes.
    answer = post(clean, raw=b"1::1-2::\n" * 3000, content_type="text/plain", query="?force=true&dry_run=true")
    assert_problem(answer, 413, "body_too_long", "line 2320")
    assert post(clean, raw=b"1::1-2::\n" * 2319, content_type="text/plain", query="?force=true").json()["added"] == 113


def test_the_longer_body_is_for_this_route_and_for_those_who_may(clean):
    text = hosts(0, 4000)
    padding = b"# " + b"x" * 97 + b"\n"
    body = text.encode() + padding * ((900000 - len(text)) // len(padding))
    assert post(clean, raw=body, content_type="text/plain").json()["added"] == 4000
    for method, path, size, status in (("POST", "/v1/lists/deny", 1048577, 413), ("PUT", "/v1/lists/deny/192.0.2.1", 65537, 413)):
        reply = clean.control(method, path, raw=b"", headers={"Content-Length": str(size)})
        assert reply.status == status, "refused by its length, before any of it is sent"
    reply = clean.control_tcp("POST", "/v1/lists/deny", {"entries": []}, headers={"Content-Length": "900000"})
    assert reply.status == 401, "the body of somebody without the secret is not waited for"



def test_labels_are_needed_to_remove_by_label(clean):
    assert_problem(clean.control("DELETE", "/v1/lists/deny"), 400, "missing_field", "label")
    assert_problem(clean.control("DELETE", "/v1/lists/deny?label="), 422, "out_of_range", "label")
    assert_problem(clean.control("DELETE", "/v1/lists/deny?label=nobody"), 404, "no_entry")
    assert_problem(clean.control("GET", "/v1/lists/block/labels"), 404, "not_found")


# --- while it runs ---------------------------------------------------------------------------------------------------------------
def test_orders_go_on_while_a_large_list_comes_in():
    """What the gate and the daemon do for buyers takes no lock that an import holds. Counted, not timed: every order is answered, none with
    a refusal, and the conservation of the books holds."""
    with World({"gate.max_prefixes": 262144}) as shop:
        text = hosts(0, 200000)
        sale = shop.sale(stock=2000)
        tokens = [sale.token() for _ in range(200)]
        done, answers, slowest = [], [], 0.0
        thread = threading.Thread(target=lambda: done.append(imported(shop, text, "--label", "large")))
        thread.start()
        while thread.is_alive() and tokens:
            started = time.monotonic()
            answers.append(shop.order(tokens.pop()).status)
            slowest = max(slowest, time.monotonic() - started)
        thread.join()
        print(f"{len(answers)} orders during the import, the slowest took {slowest * 1000:.0f} ms")
        assert done and done[0]["added"] == 200000
        assert len(answers) > 3 and set(answers) == {201}, answers
        assert len(entries_of(shop, query="&label=large")) == 200000
        assert json.loads(shop.cli("deny", "undo", "large", "-o", "json").stdout)["removed"] == 200000
        assert bits_in_index(shop) == 0
        assert shop.order(sale.token()).status == 201
        sale.assert_books(put_in=2000)


def test_concurrent_imports_of_different_labels_both_arrive(clean):
    results = []
    threads = [threading.Thread(target=lambda n=n: results.append(
        imported(clean, hosts(n * 10000, 1000), "--label", f"part {n}", name=f"part{n}.netset"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result["added"] for result in results] == [1000] * 4
    labels = {row["label"]: row["entries"] for row in clean.ask("GET", "/v1/lists/deny/labels")["labels"]}
    assert labels == {f"part {n}": 1000 for n in range(4)}
    for n in range(4):
        clean.cli("deny", "undo", f"part {n}")
    assert bits_in_index(clean) == 0


def test_lists_are_where_they_were_after_a_crash_of_the_daemon(clean):
    imported(clean, hosts(0, 500), "--label", "kept")
    clean.daemon.kill()
    clean.start_daemon()
    assert len(entries_of(clean, query="&label=kept")) == 500
    clean.cli("deny", "undo", "kept")
    assert bits_in_index(clean) == 0 and not entries_of(clean)
