# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The operator's command: each verb once, as a table and as JSON, and the exit codes that scripts rely on."""
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from netns import run
from world import CONTROL_PORT, SLUICE, World, rfc3339

OK, FAILED, USAGE, NOT_FOUND, CONFLICT, NOT_ALLOWED, UNREACHABLE, BROKEN = range(8)


def ask(world, *args):
    """The JSON that a verb prints."""
    done = world.cli(*args, "-o", "json")
    return json.loads(done.stdout)


def create(world, slug, *args, stock=10):
    return ask(world, "sale", "create", slug, "--stock", str(stock), "--opens", "now", "--ends", "+1h", *args)


def test_sale_create_show_list(world):
    made = create(world, "cli-one", "--per-buyer", "2", "--hold", "20m", "--pace", "50")
    assert (made["slug"], made["stock"], made["per_buyer"], made["hold_seconds"], made["pace_per_second"]) == \
        ("cli-one", 10, 2, 1200, 50)
    assert ask(world, "sale", "show", "cli-one")["id"] == made["id"]
    assert "cli-one" in [sale["slug"] for sale in ask(world, "sale", "list")["sales"]]
    table = world.cli("sale", "list").stdout
    row, = [line for line in table.splitlines() if line.startswith("cli-one ")]
    assert "open" in row and "10" in row.split()
    assert "1200" in world.cli("sale", "show", "cli-one").stdout


def test_data_is_on_stdout_and_talk_on_stderr(world):
    done = world.cli("sale", "create", "cli-talk", "--stock", "1", "--opens", "now", "--ends", "+1h", "-o", "json")
    assert json.loads(done.stdout)["slug"] == "cli-talk"
    assert "created" in done.stderr and "created" not in done.stdout


def test_sale_create_takes_times_as_people_write_them(world):
    opens = time.time() + 3600
    made = ask(world, "sale", "create", "cli-times", "--stock", "1", "--opens", rfc3339(opens), "--ends",
               rfc3339(opens + 60))
    assert made["state"] == "scheduled" and made["opens_at"] == rfc3339(opens).replace(".000Z", "Z")


def test_sale_create_twice_is_a_conflict(world):
    create(world, "cli-twice")
    done = world.cli("sale", "create", "cli-twice", "--stock", "5", "--opens", "now", "--ends", "+1h", check=False)
    assert done.returncode == CONFLICT and done.stdout == "" and "cli-twice" in done.stderr
    assert ask(world, "stock", "show", "cli-twice")["put_in"] == 10


def test_sale_set_pause_resume_end(world):
    create(world, "cli-life")
    assert ask(world, "sale", "set", "cli-life", "--per-buyer", "3")["per_buyer"] == 3
    assert ask(world, "sale", "pause", "cli-life")["state"] == "paused"
    assert ask(world, "sale", "resume", "cli-life")["state"] == "open"
    assert ask(world, "sale", "end", "cli-life")["state"] == "ended"
    done = world.cli("sale", "resume", "cli-life", check=False)
    assert done.returncode == CONFLICT and done.stderr


def test_all_sales_are_paused_and_resumed_by_one_command():
    with World() as world:
        sales = [world.sale(stock=1), world.sale(stock=1, opens_in=600), world.sale(stock=1)]
        sales[2].act("end")
        done = world.cli("sale", "pause", "--all")
        assert done.stdout.splitlines() == [f"{sale.slug}: paused" for sale in sales[:2]], done
        assert world.order(sales[0].token()).status == 503
        assert [sale.show()["state"] for sale in sales] == ["paused", "paused", "ended"]
        world.writer.kill()
        away = world.cli("sale", "resume", "--all", check=False)
        assert away.returncode == FAILED and away.stdout.count(": failed") == 2 and "2 of 2 sales" in away.stderr, away
        world.start_writer()
        world.wait_ready()
        done = json.loads(world.cli("sale", "resume", "--all", "-o", "json").stdout)
        assert done == {"sales": [{"slug": sales[0].slug, "state": "open"}, {"slug": sales[1].slug, "state": "scheduled"}]}
        assert world.order(sales[0].token()).status == 201
        refused = world.cli("sale", "set", sales[1].slug, "--ends", "2020-01-01T00:00:00Z", check=False)
        assert refused.returncode == USAGE and "--ends" in refused.stderr and "ends_at" not in refused.stderr, refused


def test_stock_show_add_remove(world):
    create(world, "cli-stock")
    assert ask(world, "stock", "add", "cli-stock", "5", "--reason", "found some")["put_in"] == 15
    assert ask(world, "stock", "remove", "cli-stock", "3")["free"] == 12
    books = ask(world, "stock", "show", "cli-stock")
    assert (books["put_in"], books["free"], books["held"], books["balanced"]) == (12, 12, 0, True)
    assert "12" in world.cli("stock", "show", "cli-stock").stdout
    done = world.cli("stock", "remove", "cli-stock", "13", check=False)
    assert done.returncode == CONFLICT and "12" in done.stderr, done
    assert ask(world, "stock", "show", "cli-stock")["put_in"] == 12


def test_limit_show_and_set(world):
    before = ask(world, "limit", "show")
    assert set(before) == {"source", "prefix", "token", "answer", "syn_prefix", "syn_global", "pace", "deny", "shadow"}
    assert ask(world, "limit", "set", "syn_global", "5000", "--burst", "9000")["syn_global"] == \
        {"rate": 5000, "burst": 9000, "shadow": False}
    assert ask(world, "limit", "set", "syn_global", "off")["syn_global"]["rate"] == 0
    table = world.cli("limit", "show").stdout
    assert all(name in table.lower() for name in before)
    for args in (("nonsense", "5"), ("source", "fast"), ("source", "-1")):
        assert world.cli("limit", "set", *args, check=False).returncode in (USAGE, FAILED, NOT_FOUND), args
    assert ask(world, "limit", "show")["source"] == before["source"]


@pytest.mark.parametrize("noun", ["deny", "allow"])
def test_lists(world, noun):
    for prefix in ("192.0.2.0/24", "2001:db8::/32"):
        assert world.cli(noun, "add", prefix, "--ttl", "10m", "--reason", "seen here").returncode == OK
    entries = {entry["prefix"]: entry for entry in ask(world, noun, "list")["entries"]}
    assert entries["192.0.2.0/24"]["reason"] == "seen here" and entries["192.0.2.0/24"]["expires_at"]
    assert "2001:db8::/32" in world.cli(noun, "list").stdout
    for prefix in ("192.0.2.0/24", "2001:db8::/32"):
        assert world.cli(noun, "rm", prefix).returncode == OK
        assert world.cli(noun, "rm", prefix, check=False).returncode == NOT_FOUND
    assert ask(world, noun, "list")["entries"] == []
    done = world.cli(noun, "add", "192.0.2.1/24", check=False)
    assert done.returncode in (USAGE, FAILED) and "192.0.2.1/24" in done.stderr


def test_token_issue_and_inspect_then_order_list_and_show(world):
    create(world, "cli-order")
    token = ask(world, "token", "issue", "cli-order", "--buyer", "a buyer")["token"]
    piped = run(world.shop.command([SLUICE, "token", "issue", "cli-order", "--buyer", "-", "-o", "json", "--socket",
                                    world.control_socket]), input="a buyer\n")
    assert json.loads(piped.stdout)["token"] == token
    inspected = ask(world, "token", "inspect", token)
    assert inspected["mac_valid"] is True and inspected["admitted"] is False
    piped = run(world.shop.command([SLUICE, "token", "inspect", "-o", "json", "--socket", world.control_socket]),
                input=token + "\n")
    assert json.loads(piped.stdout) == inspected
    order = world.order(token).json()
    listed = ask(world, "order", "list", "--sale", "cli-order")
    assert [entry["id"] for entry in listed["orders"]] == [order["id"]]
    assert ask(world, "order", "show", order["id"])["seq"] == 1
    assert order["id"] in world.cli("order", "list").stdout
    assert ask(world, "order", "list", "--sale", "cli-order", "--state", "confirmed")["orders"] == []
    assert world.cli("order", "show", "0" * 16, check=False).returncode == NOT_FOUND


def test_order_list_all_goes_over_pages(world):
    sale = world.sale(stock=1200)
    tokens = [sale.token() for _ in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status for answer in pool.map(world.order, tokens)} == {201}
    listed = ask(world, "order", "list", "--sale", sale.slug, "--all")
    assert len({order["id"] for order in listed["orders"]}) == 1100
    assert len(ask(world, "order", "list", "--sale", sale.slug)["orders"]) < 1100


def test_key_rotate(world):
    create(world, "cli-key")
    assert isinstance(ask(world, "key", "rotate")["key_id"], int)
    token = ask(world, "token", "issue", "cli-key", "--buyer", "b")["token"]
    assert world.order(token).status == 201


def test_stats(world):
    assert "packets" in ask(world, "stats")
    table = world.cli("stats").stdout
    assert "shop" in table and "syn_cookie" in table


def test_over_tcp_with_the_secret_from_a_file(world):
    url = f"http://127.0.0.1:{CONTROL_PORT}"
    done = world.sluice("sale", "list", "--url", url, "--secret-file", world.state_dir / "control.secret", "-o", "json")
    assert "sales" in json.loads(done.stdout)
    (world.dir / "wrong.secret").write_text("0" * 64 + "\n")
    (world.dir / "wrong.secret").chmod(0o600)
    done = world.sluice("sale", "list", "--url", url, "--secret-file", world.dir / "wrong.secret", check=False)
    assert done.returncode == NOT_ALLOWED and done.stderr, done


def test_without_the_permission_of_the_socket(world):
    world.dir.chmod(0o755)
    done = run(world.shop.command(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", SLUICE, "sale", "list",
                                   "--socket", world.control_socket]), check=False)
    assert done.returncode == NOT_ALLOWED and str(world.control_socket) in done.stderr, done


@pytest.mark.parametrize("args, code", [
    (["sale", "show", "no-such-sale"], NOT_FOUND), (["sale", "pause", "no-such-sale"], NOT_FOUND),
    (["stock", "show", "no-such-sale"], NOT_FOUND), (["token", "issue", "no-such-sale", "--buyer", "b"], NOT_FOUND),
    (["order", "show", "nonsense"], None), (["sale"], USAGE), (["sale", "nonsense"], USAGE), (["sale", "show"], USAGE),
    (["sale", "show", "a", "b"], USAGE), (["sale", "list", "--nonsense"], USAGE), (["sale", "list", "-o", "xml"], USAGE),
    (["sale", "create", "x", "--stock", "1"], USAGE),
    (["sale", "create", "x", "--stock", "many", "--opens", "now", "--ends", "+1h"], USAGE),
    (["sale", "create", "x", "--stock", "1", "--opens", "soon", "--ends", "+1h"], USAGE),
    (["sale", "create", "UPPER", "--stock", "1", "--opens", "now", "--ends", "+1h"], None),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_exit_codes(world, args, code):
    done = world.cli(*args, check=False)
    assert done.returncode == code if code is not None else done.returncode in (FAILED, USAGE, NOT_FOUND), done
    assert done.stdout == "" and done.stderr.strip(), done


def test_help_and_version():
    codes = run([SLUICE, "answer", "set", "--help"]).stdout
    assert all(code in codes for code in ("token_invalid", "sold_out", "unavailable", "wrong_node")) and " none " not in codes, codes
    for args in (["--help"], ["sale", "--help"], ["sale", "create", "--help"], ["attach", "--help"], ["detach", "--help"]):
        done = run([SLUICE, *args])
        assert "usage" in done.stdout.lower(), args
    assert run([SLUICE, "--version"]).stdout.strip()
    assert run([SLUICE], check=False).returncode == USAGE


def test_a_daemon_that_is_not_there_is_unreachable(tmp_path):
    for args in (["sale", "list"], ["stats"], ["deny", "add", "192.0.2.1"], ["order", "list"]):
        done = run([SLUICE, *args, "--socket", tmp_path / "none.sock"], check=False)
        assert done.returncode == UNREACHABLE and done.stdout == "", done
        assert "none.sock" in done.stderr and "sluiced" in done.stderr, done.stderr


def test_check_of_the_config_file():
    with World(start=()) as world:
        for program in ("sluiced", "sluice-writer"):
            binary = SLUICE.parent / program
            assert run([binary, "--check", "--config", world.config]).returncode == OK
            world.write_config()
            with open(world.config, "a", encoding="utf-8") as file:
                file.write("daemon2: { };\n")
            done = run([binary, "--check", "--config", world.config], check=False)
            assert done.returncode != OK and str(world.config) in done.stderr and "daemon2" in done.stderr, done
            world.write_config()


def test_check_looks_for_users_groups_and_directories(tmp_path):
    binaries = {name: SLUICE.parent / name for name in ("sluiced", "sluice-writer")}

    def check(program, *more, **settings):
        with World({name.replace("__", "."): value for name, value in settings.items()}, start=()) as world:
            return run([binaries[program], "--check", "--config", world.config, *more], check=False)

    def assert_says(done, *words):
        assert done.returncode == 1 and all(word in done.stderr for word in words), done
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    locked.joinpath("file").touch()
    assert_says(check("sluiced", daemon__user="nobody-at-all"), "daemon.user", '"nobody-at-all"', "useradd")
    assert_says(check("sluiced", daemon__control_group="no-such-group"), "daemon.control_group", "groupadd")
    assert_says(check("sluiced", daemon__state_dir=tmp_path / "a" / "b"), "daemon.state_dir", str(tmp_path / "a" / "b"), "mkdir -p")
    for program in binaries:
        assert_says(check(program, writer__user="nobody-at-all"), "writer.user", '"nobody-at-all"', "useradd")
        assert_says(check(program, writer__ledger=locked / "ledger.db", writer__user="nobody"), "writer.ledger", f"chown nobody {locked}")
        assert_says(check(program, writer__ledger=tmp_path / "a" / "b" / "ledger.db"), "writer.ledger", "mkdir -p")
        assert_says(check(program, writer__ledger=locked / "file" / "ledger.db"), "writer.ledger")
        assert check(program, writer__ledger=tmp_path / "made-at-the-start" / "ledger.db").returncode == OK
    every = check("sluiced", daemon__user="nobody-at-all", writer__ledger=tmp_path / "a" / "b" / "ledger.db")
    assert_says(every, "daemon.user", "writer.ledger")
    with World({"daemon.user": "nobody-at-all"}, start=()) as world:
        assert run([binaries["sluiced"], "--check=syntax", "--config", world.config]).returncode == OK
        assert run([binaries["sluiced"], "--check=some", "--config", world.config], check=False).returncode == USAGE
