# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The sale page in a real browser behind the gate: countdown, order link, one order at the opening, honest words for refusals."""
import re
import time

import pytest

import browser
from netns import wait_until
from world import PORT, SHOP, rfc3339

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
    page.click("#order")
    wait_text(page, "It is yours")
    order, = sale.orders()
    assert order["id"] in page.text() and str(order["seq"]) in page.text()
    sale.assert_books(put_in=3, free=2, held=1)

    page.open(address(family, f"/sales/{sale.slug}"))
    wait_text(page, order["id"])
    # Asking for an order that is not there yet is how the page finds out, and the browser notes the 404.
    assert [line for line in page.complaints() if not ("/v1/orders/" in line and "404" in line)] == []
    sale.assert_books(put_in=3, free=2, held=1)


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
    refused = world.packets(what) + world.calls(what)
    page.click("#order")
    wait_text(page, words)
    assert world.packets(what) + world.calls(what) > refused, "not the page's own guess but the judge's word, at one of its doors"
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
