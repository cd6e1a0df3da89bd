# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The sale page in a real browser behind the gate: countdown, order link, one order at the opening, honest words for refusals."""
import http.server
import json
import re
import socket
import threading
import time

import pytest

import browser
from netns import wait_until
from world import CROWD, PORT, SHOP, World, rfc3339

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))


@pytest.fixture
def chromium(world, request):
    with browser.Browser(world, re.sub(r"\W", "-", request.node.name)) as page:
        yield page


def address(family, path):
    host = f"[{SHOP[family]}]" if family == "ipv6" else SHOP[family]
    return f"http://{host}:{PORT}{path}"


def wait_text(page, words, timeout=30):
    try:
        wait_until(lambda: words in page.text(), f"the page says {words!r}", timeout=timeout, pause=0.1)
    except AssertionError as error:
        raise AssertionError(f"{error}\n--- the page\n{page.text()}\n--- the browser\n{page.complaints()}") from error


def button(page):
    """(text, can it be pressed?)"""
    return tuple(page.run("const b = document.getElementById('order'); return [b.textContent, !b.disabled]"))


def wait_armed(page):
    try:
        wait_until(lambda: button(page)[1], "the button can be pressed", timeout=30, pause=0.1)
    except AssertionError as error:
        raise AssertionError(f"{error}\n--- the page\n{page.text()}\n--- the browser\n{page.complaints()}") from error


def test_from_countdown_to_order(world, chromium, family):
    page = chromium
    sale = world.sale(stock=3, opens_in=600)
    page.open(address(family, f"/sales/{sale.slug}"))
    wait_text(page, "Opens in")
    assert re.search(r"\b0?9:5\d|10:00", page.text()), page.text()
    text, armed = button(page)
    assert text.startswith("Opens in") and not armed
    wait_text(page, "Your order link is ready")
    assert world.stats()["tokens"]["live"] >= 1

    # The page reads the sale anew every 15 s or so, and when it is opened.
    sale.change(opens_at=rfc3339(time.time() + 3))
    page.open(address(family, f"/sales/{sale.slug}"))
    wait_armed(page)
    admitted = world.packets("admitted")
    page.click("#order")
    wait_text(page, "It is yours")
    assert world.packets("admitted") == admitted + 1, "the order came in the first segment of a connection, where the gate reads it"
    order, = sale.orders()
    assert order["id"] in page.text() and str(order["seq"]) in page.text()
    sale.assert_books(put_in=3, free=2, held=1)

    page.open(address(family, f"/sales/{sale.slug}"))
    wait_text(page, order["id"])
    # Asking for an order that is not there yet is how the page finds out, and the browser notes the 404.
    assert [line for line in page.complaints() if not ("/v1/orders/" in line and "404" in line)] == []
    sale.assert_books(put_in=3, free=2, held=1)


def test_a_browser_whose_clock_is_stepped_back_opens_in_time(world, chromium):
    """As after a laptop's sleep: whatever the page measured before, and however well, is wrong by an hour."""
    page = chromium
    step_back = "const now = Date.now; Date.now = () => now() - 3600000;"
    sale = world.sale(stock=3, opens_in=5)
    page.open(address("ipv4", f"/sales/{sale.slug}"))
    wait_text(page, "Opens in")
    page.run("offsetError = 0;" + step_back + "draw();")
    assert re.search(r"Opens in (01:00|59):\d\d", button(page)[0]), button(page)
    page.run("return readSale()")
    assert not re.search(r"Opens in (01:00|59):\d\d", button(page)[0]), button(page)
    wait_armed(page)
    # And once the server has said that the sale is open, no clock says otherwise.
    page.run("return readSale()")
    page.run("offsetError = 0;" + step_back + "draw();")
    assert button(page) == ("Order", True)


def test_a_second_press_and_a_second_tab_order_nothing_more(world, chromium):
    page = chromium
    sale = world.sale(stock=3)
    page.open(address("ipv4", f"/sales/{sale.slug}"))
    wait_armed(page)
    page.run("const b = document.getElementById('order'); b.click(); b.click(); b.click();")
    wait_text(page, "It is yours")
    sale.assert_books(put_in=3, free=2, held=1)


@pytest.mark.parametrize("what, words", [("sold_out", "Sold out"), ("paused", "paused"), ("ended", "The sale is over")])
def test_refusals_are_told_in_words(world, chromium, what, words):
    """The button was armed, and then the world changed: what the gate answers is shown as a sentence."""
    page = chromium
    sale = world.sale(stock=1)
    page.open(address("ipv4", f"/sales/{sale.slug}"))
    wait_armed(page)
    if what == "sold_out":
        assert world.order(sale.token()).status == 201
    else:
        sale.act({"paused": "pause", "ended": "end"}[what])
    refused = world.packets(what)
    page.click("#order")
    wait_text(page, words)
    assert world.packets(what) > refused, "not the page's own guess but the gate's word, which cost the shop no socket"
    if what == "paused":
        sale.act("resume")
        wait_text(page, "It is yours", timeout=60)
        sale.assert_books(put_in=1, free=0, held=1)


def test_a_page_without_a_sale_says_so(world, chromium, family):
    chromium.open(address(family, "/sales/no-such-sale"))
    wait_text(chromium, "no such sale")
    chromium.open(address(family, "/"))
    wait_text(chromium, "Which sale?")
    for path, kind in (("/assets/app.js", "text/javascript"), ("/assets/style.css", "text/css"), ("/", "text/html")):
        answer = world.public("GET", path, family=family)
        assert answer.status == 200 and answer.header("content-type").startswith(kind)
        assert "script-src 'self'" in answer.header("content-security-policy")
    assert world.public("GET", "/assets/none.js", family=family).status == 404


class OtherNode:
    """Another node of the fleet, as far as a page can tell: it has one order, and lets every page read its answers."""
    PORT = 9000
    URL = f"http://{CROWD['ipv4']}:{PORT}"
    ORDER = {"id": "0123456789abcdef", "seq": 7, "state": "held", "quantity": 1, "admitted_at": "2026-11-22T12:00:00Z"}

    def __init__(self, world):
        self.asked, self.ordered = [], False
        other = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer()

            def do_POST(self):
                other.ordered = True
                self.answer()

            def answer(self):
                other.asked.append((self.command, self.path))
                body = json.dumps(other.ORDER if other.ordered else {"code": "no_order", "detail": "It has not been admitted."}).encode()
                self.send_response(201 if other.ordered else 404)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        listener = world.crowd.socket(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((CROWD["ipv4"], self.PORT))
        listener.listen(16)
        self.server = http.server.ThreadingHTTPServer((CROWD["ipv4"], self.PORT), Handler, bind_and_activate=False)
        self.server.socket.close()
        self.server.socket = listener
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def test_an_order_link_of_another_node_is_followed_there():
    nodes = [{"id": 1, "url": f"http://{SHOP['ipv4']}:{PORT}"}, {"id": 2, "url": OtherNode.URL}]
    with World(settings={"fleet.node": 1, "nodes": nodes}) as world:
        sale = world.sale(stock=3)
        token = sale.signed(node=2)
        other = OtherNode(world)
        try:
            with browser.Browser(world, "followed") as page:
                page.open(address("ipv4", f"/sales/{sale.slug}"))
                wait_armed(page)
                kept = json.dumps({"text": token, "expires": (time.time() + 600) * 1000, "quantity": 1})
                page.run(f"localStorage.setItem('sluice.token.{sale.slug}', {json.dumps(kept)})")
                page.open(address("ipv4", f"/sales/{sale.slug}"))
                # Loaded anew the page asks for its order, and the daemon sends it there.
                wait_until(lambda: ("GET", f"/v1/orders/{token}") in other.asked, "the other node is asked for the order", timeout=30)
                wait_armed(page)
                # And from the gate: as if the page had not been told yet.
                before = world.packets("wrong_node") + world.calls("wrong_node")
                page.run("home = ''")
                page.click("#order")
                wait_text(page, "It is yours")
                assert ("POST", f"/v1/orders/{token}") in other.asked
                assert OtherNode.ORDER["id"] in page.text()
                assert world.packets("wrong_node") + world.calls("wrong_node") > before
                sale.assert_books(put_in=3, free=3, held=0)
        finally:
            other.close()
