# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Webhooks and the ledger's events, end to end: a real receiver that is well, ill, hostile or not there, and orders and other sales that must not
notice.
"""
import json
import os
import pathlib
import stat
import subprocess
import threading
import time

import pytest

import jsonschema
import receiver as receiver_module
from netns import wait_until
from receiver import answers, drips, floods, hangs, hangs_up, only_for, receiving, talks_nonsense
from test_privileges import ServicesWorld, assert_confined
from world import UnixConnection, World, seconds_of

PASSWORD = "hunter2-in-the-url"
ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = json.loads((ROOT / "docs/openapi-control.json").read_text(encoding="utf-8"))
MESSAGE = jsonschema.Draft202012Validator({"components": DOCUMENT["components"], "$ref": "#/components/schemas/message"},
                                          format_checker=jsonschema.FormatChecker())


class HookedWorld(World):
    """With a receiver in the shop's namespace and a daemon that posts to it."""

    def __init__(self, certificate=None, **settings):
        super().__init__(start=())
        try:
            self.receiver = receiver_module.Receiver(self.shop, certificate)
            self._stack.callback(self.receiver.stop)
            self.settings["daemon.webhook_url"] = self.receiver.url
            self.settings.update(settings)
            self.write_config()
            self.attach()
            self.start_writer()
            self.start_daemon()
        except BaseException:
            self.close()
            raise

    def secrets(self):
        return (self.state_dir / "webhook.secret").read_text(encoding="ascii").split()

    def webhooks(self):
        return self.ask("GET", "/v1/webhooks")

    def standing(self, sale):
        """What the daemon says of a sale with something outstanding, or None."""
        return next((entry for entry in self.webhooks()["sales"] if entry["sale"] == sale.slug), None)

    def metric(self, line):
        text = self.control("GET", "/metrics").body.decode()
        return next((float(found.split()[-1]) for found in text.splitlines() if found.startswith(line + " ")), None)

    def order_some(self, sale, count):
        """Buyers who all get a unit."""
        found = [self.order(sale.token()) for _ in range(count)]
        assert [answer.status for answer in found] == [201] * count
        return [answer.json() for answer in found]

    def events(self, sale):
        """[(position, type)] of a sale as the ledger's tables have them."""
        rows = self.ledger_query(f"SELECT position, 'order.held' FROM orders WHERE sale = {sale.id} UNION ALL "
                                 f"SELECT position, type FROM events WHERE sale = {sale.id} ORDER BY 1")
        return [(int(position), kind) for position, kind in rows]

    def open_sale(self, **fields):
        """A sale whose opening is in the ledger, so that its orders stand behind it."""
        sale = self.sale(**fields)
        wait_until(lambda: self.events(sale), "the opening is recorded")
        return sale

    def wait_taken(self, sale, count=None):
        """All that the ledger has of the sale (`count` events, if given) is with the receiver, in the ledger's order."""
        def taken():
            events, got = self.events(sale), self.receiver.once(sale.slug)
            return (count is None or len(events) == count) and len(got) == len(events)
        wait_until(taken, f"the events of {sale.slug}", timeout=40)
        expected = self.events(sale)
        assert [(delivery.position, delivery.type) for delivery in self.receiver.once(sale.slug)] == expected
        assert [delivery.id for delivery in self.receiver.once(sale.slug)] == [f"evt_{sale.id}_{position}" for position, _ in expected]
        for delivery in self.receiver.once(sale.slug):
            MESSAGE.validate(delivery.message)
        self.receiver.assert_sound(self.secrets())
        return [kind for _, kind in expected]


class Event:
    def __init__(self, fields):
        self.id = int(fields["id"])
        self.type = fields["event"]
        self.message = json.loads(fields["data"])


class Events:
    """GET /v1/events/ledger, read as a browser's EventSource reads it."""

    def __init__(self, world, query="", last_event_id=None):
        self.connection = UnixConnection(world.control_socket, 20)
        headers = {"Last-Event-ID": str(last_event_id)} if last_event_id is not None else {}
        self.connection.request("GET", "/v1/events/ledger?" + query, headers=headers)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()
        assert self.response.headers["Content-Type"] == "text/event-stream"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.connection.close()

    def blocks(self):
        """An Event, or the text of a comment, or None at the end of the stream."""
        fields = {}
        while True:
            line = self.response.readline().decode()
            if not line:
                return
            line = line.rstrip("\n")
            if line.startswith(":"):
                yield line
            elif line:
                name, _, value = line.partition(": ")
                assert name in ("id", "event", "data") and name not in fields, line
                fields[name] = value
            elif fields:
                yield Event(fields)
                fields = {}

    def take(self, count):
        """So many events; fewer if the stream ends."""
        found, idle = [], 0
        for block in self.blocks():
            if isinstance(block, Event):
                found.append(block)
                if len(found) == count:
                    break
            idle = idle + 1 if block == ": alive" else 0
            assert idle < 20, f"nothing comes after {[event.id for event in found]}"
        return found

    def until_end(self):
        """Events up to the first word that there is no other now."""
        found = []
        for block in self.blocks():
            if block == ": alive":
                break
            if isinstance(block, Event):
                found.append(block)
        return found


def start_hooked(request, **settings):
    world = HookedWorld(**settings)
    request.addfinalizer(world.close)
    return world


@pytest.fixture(scope="module", name="hooked")
def hooked_fixture():
    with HookedWorld() as world:
        yield world


@pytest.fixture(autouse=True)
def a_well_receiver(request):
    """A test that left it ill leaves it well to the next one."""
    yield
    if "hooked" in request.fixturenames:
        world = request.getfixturevalue("hooked")
        world.receiver.behaviour = receiver_module.Handler.take
        world.receiver.release.set()
        if not world.receiver.server:
            world.receiver.start()
        if not world.daemon.running():
            world.start_daemon()
        world.ask("POST", "/v1/webhooks/resume")


# --- what comes ------------------------------------------------------------------------------------------------------------

def test_a_sale_is_told_from_its_opening_to_its_end(hooked):
    sale = hooked.open_sale(stock=3, hold_seconds=0)
    orders = hooked.order_some(sale, 3)
    kinds = ["sale.opened"] + ["order.held"] * 3 + ["sale.sold_out"]
    assert hooked.wait_taken(sale, len(kinds)) == kinds
    sale.move(2)
    kinds.append("sale.restocked")
    hooked.wait_taken(sale, len(kinds))
    sale.act("end")
    kinds.append("sale.ended")
    assert hooked.wait_taken(sale, len(kinds)) == kinds
    held = [delivery for delivery in hooked.receiver.once(sale.slug) if delivery.type == "order.held"]
    for delivery, order in zip(held, orders):
        told = delivery.message["data"]
        assert (told["sale"], told["sale_id"]) == (sale.slug, sale.id)
        assert {key: told["order"][key] for key in ("id", "seq", "quantity", "state")} == \
            {"id": order["id"], "seq": order["seq"], "quantity": 1, "state": "held"}
    sold_out = next(delivery for delivery in hooked.receiver.once(sale.slug) if delivery.type == "sale.sold_out")
    assert sold_out.message["data"] == {"sale": sale.slug, "sale_id": sale.id, "put_in": 3, "held": 3, "confirmed": 0}


def test_all_that_becomes_of_an_order_is_told_in_order(hooked):
    sale = hooked.open_sale(stock=10, hold_seconds=0)
    confirmed, cancelled, refunded, lost = (order["id"] for order in hooked.order_some(sale, 4))
    for order, verb, body in ((confirmed, "confirm", None), (cancelled, "cancel", None), (refunded, "confirm", None),
                              (refunded, "refund", {"restock": True}), (lost, "confirm", None), (lost, "refund", {"restock": False})):
        hooked.ask("POST", f"/v1/orders/{order}/{verb}", body)
    hooked.wait_taken(sale, 11)
    told = {}
    for delivery in hooked.receiver.once(sale.slug):
        if "order" in delivery.message["data"]:
            order = delivery.message["data"]["order"]
            assert delivery.type == f"order.{order['state']}"
            told.setdefault(order["id"], []).append((order["state"], order["resolved_by"], order["restocked"]))
    assert told == {
        confirmed: [("held", None, False), ("confirmed", "shop", False)],
        cancelled: [("held", None, False), ("cancelled", "shop", False)],
        refunded: [("held", None, False), ("confirmed", "shop", False), ("refunded", "shop", True)],
        lost: [("held", None, False), ("confirmed", "shop", False), ("refunded", "shop", False)],
    }


def test_a_hold_that_runs_out_is_told_and_reopens_a_sold_out_sale(hooked):
    sale = hooked.open_sale(stock=1, hold_seconds=3)
    hooked.order_some(sale, 1)
    kinds = ["sale.opened", "order.held", "sale.sold_out", "order.expired", "sale.restocked"]
    assert hooked.wait_taken(sale, len(kinds)) == kinds


def test_a_sale_opens_by_the_clock_and_ends_by_it(hooked):
    sale = hooked.sale(stock=1, opens_in=1.0, ends_in=3.0)
    assert hooked.wait_taken(sale, 2) == ["sale.opened", "sale.ended"]


def test_one_that_is_ended_before_its_time_is_not_told_as_opened(hooked):
    sale = hooked.sale(stock=1, opens_in=600)
    sale.act("end")
    assert hooked.wait_taken(sale, 1) == ["sale.ended"]


# --- a receiver that is not there -------------------------------------------------------------------------------------------

def test_what_happened_while_the_receiver_was_down_comes_when_it_is_back(hooked):
    first, second = hooked.open_sale(stock=50), hooked.open_sale(stock=50)
    hooked.order_some(first, 2)
    hooked.wait_taken(first, 3)
    hooked.receiver.stop()
    for _ in range(10):
        hooked.order_some(first, 1)
        hooked.order_some(second, 1)
    wait_until(lambda: hooked.standing(first) and hooked.standing(first)["last_failure"], "deliveries fail")
    standing = hooked.standing(first)
    assert (standing["last_failure"], standing["last_status"]) == ("connect", None) and standing["failures"] >= 1
    wait_until(lambda: hooked.metric("sluice_webhooks_lag_seconds") > 0, "the lag shows")
    assert hooked.metric('sluice_webhooks_failed_total{class="connect"}') >= 1
    hooked.receiver.release.clear()
    hooked.receiver.start()
    hooked.wait_taken(first, 13)
    hooked.wait_taken(second, 11)
    wait_until(lambda: hooked.webhooks()["sales"] == [], "nothing is outstanding")
    assert hooked.metric("sluice_webhooks_lag_seconds") == 0


def test_a_daemon_that_is_killed_goes_on_where_it_was(hooked):
    """It is killed with things outstanding, again and again; what comes twice has the same id and the same bytes (assert_sound)."""
    sale, other = hooked.open_sale(stock=100), hooked.open_sale(stock=100)
    flip = threading.Lock()
    calls = []

    def every_third_fails(handler, delivery):
        with flip:
            calls.append(delivery)
            fails = len(calls) % 3 == 0
        handler.take(delivery, 500 if fails else 204)

    hooked.receiver.behaviour = every_third_fails
    expected = 1
    for _ in range(3):
        hooked.order_some(sale, 7)
        hooked.order_some(other, 3)
        expected += 7
        seen = len(hooked.receiver.taken)
        wait_until(lambda: len(hooked.receiver.taken) > seen, "something is delivered")  # pylint: disable=cell-var-from-loop
        hooked.daemon.kill()
        hooked.start_daemon()
    hooked.receiver.behaviour = receiver_module.Handler.take
    hooked.wait_taken(sale, expected)
    hooked.wait_taken(other)


def test_a_daemon_that_stops_orderly_repeats_nothing(hooked):
    sale = hooked.open_sale(stock=10)
    hooked.order_some(sale, 5)
    hooked.wait_taken(sale, 6)
    hooked.daemon.terminate()
    hooked.start_daemon()
    hooked.order_some(sale, 1)
    hooked.wait_taken(sale, 7)
    ids = [delivery.id for delivery in hooked.receiver.of(sale.slug)]
    assert len(ids) == len(set(ids))
    assert hooked.receiver.types(sale.slug).count("sale.opened") == 1


# --- a receiver that is ill -------------------------------------------------------------------------------------------------

ILL = {
    "answers_500": (answers(500), "5xx"), "answers_404": (answers(404), "4xx"), "hangs": (hangs, None), "drips": (drips, None),
    "hangs_up": (hangs_up, "broken"), "talks_nonsense": (talks_nonsense, "broken"), "floods_an_error": (floods(503), "5xx"),
    "redirects": (answers(307, ("Location", "http://127.0.0.1:1/elsewhere")), "3xx"),
}


@pytest.mark.parametrize("how", ILL)
def test_one_sale_s_ill_receiver_holds_back_that_sale_alone(hooked, how):
    behaviour, failure = ILL[how]
    ill, well = hooked.open_sale(stock=40), hooked.open_sale(stock=40)
    hooked.wait_taken(ill, 1)
    hooked.receiver.requests.clear()
    hooked.receiver.release.clear()
    hooked.receiver.behaviour = only_for(ill.slug, behaviour)
    hooked.order_some(ill, 3)
    wait_until(lambda: hooked.receiver.of(ill.slug, hooked.receiver.requests), "the ill one has been asked")
    for expected in (11, 21):
        hooked.order_some(well, 10)
        hooked.wait_taken(well, expected)
    assert hooked.receiver.types(ill.slug) == ["sale.opened"]
    if failure:
        wait_until(lambda: hooked.standing(ill)["last_failure"] == failure, f"it is told as {failure}")
    assert hooked.standing(ill)["position"] < hooked.events(ill)[1][0]
    hooked.receiver.release.set()
    hooked.receiver.behaviour = receiver_module.Handler.take
    wait_until(lambda: (hooked.standing(ill) or {}).get("state") != "sending", "it lets go")
    hooked.ask("POST", "/v1/webhooks/resume")
    hooked.wait_taken(ill, 4)


def test_a_redirect_is_not_followed(hooked):
    with receiving(hooked.shop) as elsewhere:
        sale = hooked.sale(stock=1, opens_in=600)
        hooked.receiver.behaviour = only_for(sale.slug, answers(307, ("Location", elsewhere.url)))
        sale.act("end")
        wait_until(lambda: hooked.standing(sale) and hooked.standing(sale)["last_failure"] == "3xx", "it was redirected")
        assert elsewhere.requests == []


def test_a_yes_with_a_body_without_end_is_a_yes(hooked):
    sale = hooked.open_sale(stock=10)
    hooked.receiver.release.clear()
    hooked.receiver.behaviour = only_for(sale.slug, floods(200))
    hooked.order_some(sale, 5)
    hooked.wait_taken(sale, 6)
    assert hooked.receiver.of(sale.slug, hooked.receiver.requests) == hooked.receiver.of(sale.slug), "it was asked twice"


def test_retry_after_is_kept(hooked):
    sale = hooked.sale(stock=1, opens_in=600)
    hooked.receiver.behaviour = only_for(sale.slug, answers(503, ("Retry-After", "1800")))
    sale.act("end")
    waiting = wait_until(lambda: (hooked.standing(sale) or {}).get("state") == "waiting" and hooked.standing(sale), "it waits")
    assert 1700 < seconds_of(waiting["next_attempt_at"]) - time.time() <= 1801


def test_orders_and_memory_do_not_notice_a_receiver_that_hangs(hooked):
    """Every sale hangs; then each buyer still gets an answer, and what the daemon holds is no more than before."""
    sales = [hooked.open_sale(stock=200) for _ in range(24)]  # more than are at work at a time
    hooked.receiver.release.clear()
    hooked.receiver.behaviour = hangs
    for sale in sales:
        hooked.order_some(sale, 1)
    wait_until(lambda: sum(entry["state"] == "sending" for entry in hooked.webhooks()["sales"]) == 16, "sixteen hang")
    before = resources(hooked.daemon.pid)
    for sale in sales:
        hooked.order_some(sale, 20)
    after = resources(hooked.daemon.pid)
    assert after["rss_kib"] - before["rss_kib"] < 4096, (before, after)  # 480 orders, which the order table keeps
    assert after["fds"] <= before["fds"] + 8, (before, after)
    assert len(hooked.receiver.requests) and hooked.webhooks()["delivered"] >= 0
    hooked.receiver.release.set()
    hooked.receiver.behaviour = receiver_module.Handler.take
    for sale in sales:
        wait_until(lambda: (hooked.standing(sale) or {}).get("state") != "sending", "it lets go", timeout=40)  # pylint: disable=cell-var-from-loop
    hooked.ask("POST", "/v1/webhooks/resume")
    for sale in sales:
        hooked.wait_taken(sale, 22)


def resources(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {"rss_kib": rss, "fds": len(os.listdir(f"/proc/{pid}/fd"))}


def test_what_has_been_delivered_leaves_nothing_behind(hooked):
    """Thousands of deliveries and as many events streamed: memory and descriptors are where they were."""
    sale = hooked.open_sale(stock=600)

    def round_of(orders):
        hooked.order_some(sale, orders)
        hooked.wait_taken(sale)
        for _ in range(10):
            with Events(hooked, f"sale={sale.slug}&after=0&limit={len(hooked.events(sale))}") as stream:
                assert len(stream.until_end()) == len(hooked.events(sale))

    round_of(100)
    before = resources(hooked.daemon.pid)
    for _ in range(4):
        round_of(100)
    after = resources(hooked.daemon.pid)
    assert after["rss_kib"] - before["rss_kib"] < 4096, (before, after)
    assert after["fds"] <= before["fds"] + 8, (before, after)


# --- gone -----------------------------------------------------------------------------------------------------------------

def test_a_receiver_that_is_gone_is_left_alone_until_somebody_says_so(hooked):
    sale = hooked.open_sale(stock=10)
    hooked.order_some(sale, 1)
    hooked.wait_taken(sale, 2)
    hooked.receiver.behaviour = answers(410)
    hooked.order_some(sale, 1)
    wait_until(lambda: hooked.webhooks()["state"] == "gone", "the receiver is gone")
    wait_until(lambda: all(entry["state"] != "sending" for entry in hooked.webhooks()["sales"]), "nothing is on its way")
    asked = len(hooked.receiver.requests)
    hooked.receiver.behaviour = receiver_module.Handler.take
    hooked.order_some(sale, 1)
    wait_until(lambda: '"gone"' in (hooked.ledger_query("SELECT value FROM documents WHERE name = 'webhook.cursors'") or [[""]])[0][0],
               "it is written down")
    hooked.daemon.kill()
    hooked.start_daemon()
    wait_until(lambda: hooked.webhooks()["state"] == "gone", "it is still gone after a restart")
    hooked.order_some(sale, 1)
    assert len(hooked.receiver.requests) == asked and hooked.metric("sluice_webhooks_on") == 0
    assert "410" in hooked.daemon.log()
    hooked.cli("webhook", "resume")
    hooked.wait_taken(sale, 5)


def test_another_url_is_another_receiver(request):
    world = start_hooked(request)
    sale = world.open_sale(stock=5)
    world.receiver.behaviour = answers(410)
    world.order_some(sale, 1)
    wait_until(lambda: world.webhooks()["state"] == "gone", "the receiver is gone")
    world.daemon.terminate()
    world.receiver.behaviour = receiver_module.Handler.take
    world.settings["daemon.webhook_url"] = world.receiver.url + "?since=today"
    world.write_config()
    world.start_daemon()
    world.wait_taken(sale, 2)


# --- secrets --------------------------------------------------------------------------------------------------------------

def test_neither_secret_nor_password_is_shown_anywhere(request):
    world = start_hooked(request)
    world.daemon.terminate()
    world.settings["daemon.webhook_url"] = world.receiver.url.replace("://", f"://shop:{PASSWORD}@") + f"?key={PASSWORD}"
    world.write_config()
    world.start_daemon(ready=True)
    sale = world.open_sale(stock=3)
    world.order_some(sale, 1)
    world.wait_taken(sale, 2)
    assert world.receiver.requests[-1].headers["authorization"].startswith("Basic ")
    world.receiver.behaviour = answers(500)
    world.order_some(sale, 1)
    wait_until(lambda: world.standing(sale) and world.standing(sale)["last_failure"] == "5xx", "one failed")
    tested = world.cli("webhook", "test", check=False)
    shown = [world.daemon.log(), tested.stdout, tested.stderr, world.cli("webhook", "status").stdout,
             json.dumps(world.webhooks()), world.control("GET", "/metrics").body.decode(), world.control("GET", "/v1/status").body.decode(),
             pathlib.Path(f"/proc/{world.daemon.pid}/cmdline").read_bytes().decode(),
             str(world.ledger_query("SELECT name, value FROM documents"))]
    info = (world.state_dir / "webhook.secret").stat()
    assert stat.S_IMODE(info.st_mode) == 0o600
    for text in shown:
        assert PASSWORD not in text and world.secrets()[0].removeprefix("whsec_")[:16] not in text, text
    assert world.webhooks()["url"] == world.receiver.url


def test_a_secret_rotates_without_a_restart(request):
    world = start_hooked(request)
    sale = world.open_sale(stock=9)
    world.order_some(sale, 1)
    world.wait_taken(sale, 2)
    old = world.secrets()[0]
    new = "whsec_" + "QUJD" * 11
    path = world.state_dir / "webhook.secret"

    def turn(text):
        path.write_text(text + "\n", encoding="ascii")
        seen = world.daemon.log().count("the secret has changed")
        wait_until(lambda: world.daemon.log().count("the secret has changed") > seen or
                   world.daemon.log().count("the secret has changed") == turns, "the daemon has seen it")
        world.receiver.requests.clear()
        world.order_some(sale, 1)
        wait_until(lambda: world.receiver.requests, "a delivery")
        world.receiver.assert_sound(text.split())

    turns = 1
    turn(f"{new} {old}")
    turns = 2
    turn(new)
    path.write_text("not a secret\n", encoding="ascii")
    wait_until(lambda: "signed as before" in world.daemon.log(), "it is told")
    world.receiver.requests.clear()
    world.order_some(sale, 1)
    wait_until(lambda: world.receiver.requests, "a delivery")
    world.receiver.assert_sound([new])


def test_a_secret_that_others_may_read_stops_the_start(request):
    world = start_hooked(request)
    world.daemon.terminate()
    (world.state_dir / "webhook.secret").chmod(0o644)
    world.start_daemon(ready=False)
    assert world.daemon.popen.wait(20) == 1
    assert "nobody else may read" in world.daemon.log()


# --- TLS ------------------------------------------------------------------------------------------------------------------

def test_a_certificate_is_checked(request, tmp_path):
    certificate = tmp_path / "receiver.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", certificate, "-out",
                    tmp_path / "ca.pem"], check=True, stderr=subprocess.DEVNULL)
    with open(certificate, "a", encoding="ascii") as file:
        file.write((tmp_path / "ca.pem").read_text(encoding="ascii"))
    world = start_hooked(request, certificate=certificate)
    sale = world.open_sale(stock=3)
    world.order_some(sale, 1)
    wait_until(lambda: world.standing(sale) and world.standing(sale)["last_failure"] == "tls", "a stranger's certificate is refused")
    assert world.receiver.requests == []
    world.daemon.terminate()
    world.settings["daemon.webhook_ca_file"] = tmp_path / "ca.pem"
    world.write_config()
    world.start_daemon()
    world.wait_taken(sale, 2)
    world.daemon.terminate()
    world.settings["daemon.webhook_url"] = world.receiver.url.replace("localhost", "127.0.0.1")
    world.write_config()
    world.start_daemon()
    world.order_some(sale, 1)
    wait_until(lambda: world.standing(sale) and world.standing(sale)["last_failure"] == "tls", "another host's certificate is refused")


# --- with no more rights than the unit gives -------------------------------------------------------------------------------

def test_the_confined_daemon_looks_names_up_and_connects(request):
    """As its systemd unit starts it: its own user, no capability, its own seccomp filter and the unit's. The name is looked up by the system's resolver."""
    world = ServicesWorld()
    request.addfinalizer(world.close)
    with receiving(world.shop) as there:
        world.settings["daemon.webhook_url"] = there.url.replace(receiver_module.HOST, "localhost")
        world.write_config()
        world.attach()
        world.start_writer()
        world.start_daemon()
        sale = world.sale(stock=1, opens_in=600)
        sale.act("end")
        wait_until(lambda: there.types(sale.slug) == ["sale.ended"], "it is delivered")
        assert_confined(world.daemon.pid)
        secret = world.state_dir / "webhook.secret"
        there.assert_sound(secret.read_text(encoding="ascii").split())
        assert secret.stat().st_uid == os.stat(f"/proc/{world.daemon.pid}").st_uid != 0
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        # A name that no file has: the resolver asks the network's, which is not there, and says so in its time.
        world.daemon.terminate()
        world.settings["daemon.webhook_url"] = "http://shop.invalid/hooks"
        world.write_config()
        world.start_daemon()
        tested = json.loads(world.cli("webhook", "test", "-o", "json", check=False).stdout)
        assert tested["failure"] in ("resolve", "timeout"), tested


# --- the operator's side ---------------------------------------------------------------------------------------------------

def test_a_test_tells_what_became_of_it(hooked):
    done = hooked.cli("webhook", "test", "-o", "json")
    told = json.loads(done.stdout)
    assert told["delivered"] and told["status"] == 204 and told["failure"] is None
    test = next(delivery for delivery in hooked.receiver.requests if delivery.id == told["id"])
    assert test.type == "webhook.test"
    assert test.signatures == [receiver_module.signature(hooked.secrets()[0], test.id, test.timestamp, test.body)]
    hooked.receiver.behaviour = answers(503)
    failed = hooked.cli("webhook", "test", check=False)
    assert failed.returncode == 1 and "5xx" in failed.stdout


def test_without_a_url_there_are_none(world):
    assert world.ask("GET", "/v1/webhooks")["state"] == "off"
    for what in ("test", "resume"):
        reply = world.control("POST", f"/v1/webhooks/{what}")
        assert (reply.status, reply.code()) == (409, "webhooks_off")
    assert "webhook" not in "".join(line for line in world.control("GET", "/metrics").body.decode().splitlines() if "route" not in line)
    assert not (world.state_dir / "webhook.secret").exists()
    assert world.cli("webhook", "status").returncode == 0
    assert world.cli("webhook", "test", check=False).returncode == 4


def test_what_was_before_the_first_webhook_is_not_posted(request):
    world = start_hooked(request, **{"daemon.webhook_url": ""})
    before = world.open_sale(stock=10)
    world.order_some(before, 3)
    wait_until(lambda: len(world.events(before)) == 4, "they are in the ledger")
    world.daemon.terminate()
    world.settings["daemon.webhook_url"] = world.receiver.url
    world.write_config()
    world.start_daemon()
    world.order_some(before, 2)
    wait_until(lambda: len(world.receiver.of(before.slug)) == 2, "what happened since")
    after = world.sale(stock=1, opens_in=600)
    after.act("end")
    world.wait_taken(after, 1)
    assert [delivery.message["data"]["order"]["seq"] for delivery in world.receiver.once(before.slug)] == [4, 5]


# --- the ledger's events as a stream -----------------------------------------------------------------------------------------

def test_a_stream_goes_on_exactly_behind_the_last_event_id(hooked):
    sale, other = hooked.open_sale(stock=100), hooked.open_sale(stock=100)
    for _ in range(10):
        hooked.order_some(sale, 1)
        hooked.order_some(other, 1)
    whole = wait_until(lambda: len(hooked.events(sale)) == 11 and hooked.events(sale), "ten orders and the opening")
    got, last = [], 0
    while len(got) < 11:
        with Events(hooked, f"sale={sale.slug}", last_event_id=last) as stream:
            piece = stream.take(min(3, 11 - len(got)))
        got += [(event.id, event.type) for event in piece]
        last = got[-1][0]
    assert got == whole
    for event in Events(hooked, f"sale={sale.slug}&after=0&limit=11").take(12):
        assert event.message["data"]["sale"] == sale.slug and event.message["type"] == event.type
    with Events(hooked, "after=0") as everything:
        ids = [event.id for event in everything.until_end()]
    assert ids == sorted(set(ids)) and set(position for position, _ in whole) < set(ids)


def test_a_stream_shows_what_happens_while_it_is_read(hooked):
    sale = hooked.sale(stock=10, opens_in=600)
    with Events(hooked) as stream:  # from now on
        sale.act("end")
        found = stream.take(1)
        assert (found[0].type, found[0].message["data"]["sale"]) == ("sale.ended", sale.slug)


def test_a_stream_outlives_the_writer(hooked):
    sale = hooked.open_sale(stock=10)
    hooked.order_some(sale, 1)
    with Events(hooked, f"sale={sale.slug}&after=0") as stream:
        assert len(stream.take(2)) == 2
        hooked.writer.kill()
        hooked.start_writer()
        wait_until(lambda: hooked.status()["orders_open"], "orders are open again")
        hooked.order_some(sale, 1)
        assert stream.take(1)[0].type == "order.held"
    hooked.wait_taken(sale, 3)


def test_a_reader_that_does_not_read_loses_nothing_and_holds_up_nobody(hooked):
    sale = hooked.open_sale(stock=400)
    with Events(hooked, f"sale={sale.slug}&after=0") as slow:
        hooked.order_some(sale, 300)
        hooked.wait_taken(sale, 301)
        assert [event.id for event in slow.take(301)] == [position for position, _ in hooked.events(sale)]


@pytest.mark.parametrize("query, headers, status, code", [
    ("sale=none", {}, 404, "unknown_sale"), ("after=x", {}, 422, "out_of_range"), ("after=-1", {}, 422, "out_of_range"),
    ("limit=0", {}, 422, "out_of_range"), ("stream=1", {}, 400, "unknown_field"), ("", {"Last-Event-ID": "seven"}, 400, "malformed_header"),
    ("", {"Last-Event-ID": "9" * 20}, 400, "malformed_header"),
])
def test_what_cannot_be_streamed_is_refused(hooked, query, headers, status, code):
    reply = hooked.control("GET", f"/v1/events/ledger?{query}", headers=headers)
    assert (reply.status, reply.code()) == (status, code)


def test_there_are_sixteen_readers_at_most_and_a_place_is_free_again(hooked):
    def open_one():
        """A stream, or None. One that another reader has closed is noticed when something was to be sent on it."""
        try:
            return Events(hooked, "after=0")
        except AssertionError as error:
            assert "too_many_watchers" in str(error)
            return None

    streams = [wait_until(open_one, "a place is free") for _ in range(16)]
    assert open_one() is None
    for stream in streams:
        stream.close()
    wait_until(open_one, "a place is free again").close()


def test_nothing_of_this_is_left_after_the_daemon(hooked):
    """A stream that is open does not keep the daemon from stopping."""
    with Events(hooked, "after=0") as stream:
        hooked.daemon.terminate()
        assert stream.until_end() is not None
    assert hooked.ledger_query("SELECT count(*) FROM documents WHERE name = 'webhook.cursors'") == [["1"]]
