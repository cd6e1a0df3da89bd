# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The descriptions of the API: well-formed, complete against the tables of routes, and true of a running daemon.

Every request example is sent, and every answer must be one that is described: status, headers, and a body that its schema allows to the
last field.
"""
import html
import json
import re

import jsonschema
import pytest

from api import (DOCUMENTS, JSON, ROOT, body_of, check, codes_of, is_stream, needs_fleet, operation_of, operations, url_of, wrong_arguments,
                 wrong_bodies)
import talk
from strange import ControlConnection
from tokens import Token, damaged
from world import World, rfc3339

TABLES = {"public": "userspace/daemon/http_public.c", "control": "userspace/daemon/control.c"}


@pytest.fixture(scope="module")
def world():
    with World({"limits.source": {"rate": 0.0, "burst": 1}, "daemon.webhook_url": "http://127.0.0.1:9/nobody"}) as shop:
        yield shop


# --- the documents alone --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_is_whole(name):
    document = DOCUMENTS[name]
    assert document["openapi"].startswith("3.1.") and document["info"]["title"] and document["info"]["version"]
    ids = [operation["operationId"] for _, _, operation in operations(name)]
    assert len(ids) == len(set(ids))
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for method, path, operation in operations(name):
        named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), path
        assert operation["summary"] and operation["responses"], (method, path)
        assert all(re.fullmatch(r"[1-5]\d\d", status) for status in operation["responses"]), (method, path)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_body_has_an_example_that_fits_its_schema(name):
    for _, path, operation in operations(name):
        parts = {"request": operation.get("requestBody", {}), **{status: answer for status, answer in operation["responses"].items() if status < "300"}}
        for which, part in parts.items():
            for media, content in part.get("content", {}).items():
                what = (path, operation["operationId"], which, media)
                if "example" in content:
                    check(name, content["schema"], content["example"])
                else:  # pages and streams are shown by tests of their own, and the description would hold itself
                    assert media != JSON and which != "request" or operation["operationId"] == "openapi", what
        for parameter in operation.get("parameters", ()):
            assert "example" in parameter or parameter["in"] != "path", path
            if "example" in parameter:
                check(name, parameter["schema"], parameter["example"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_route_is_described_and_nothing_else(name):
    source = (ROOT / TABLES[name]).read_text(encoding="utf-8")
    routes = {(method.lower(), re.sub(r"{\*?}", "{}", path)) for method, path in re.findall(r'{"([A-Z]+)", "(/[^"]*)"', source)}
    described = {(method, re.sub(r"{\w+}", "{}", path)) for method, path, _ in operations(name)}
    assert routes - described == set(), "not described"
    assert described - routes == set(), "described and not there"


def test_every_code_in_the_sources_has_a_page_and_every_described_one_too():
    listed = set(re.findall(r'^\tX\("([a-z_]+)"', (ROOT / "userspace/daemon/problems.h").read_text(encoding="utf-8"), re.M))
    for file in (ROOT / "userspace/daemon").glob("*.c"):
        text = file.read_text(encoding="utf-8")
        used = set(re.findall(r'http_problem(?:_field|_retry)?\(\s*\w+,\s*\d{3},\s*"([a-z_]+)"', text))
        used |= set(re.findall(r'PROBLEM_TYPE_PREFIX "([a-z_]+)"', text))
        assert used <= listed, (file.name, used - listed)
    for name in DOCUMENTS:
        for _, path, operation in operations(name):
            for answer in operation["responses"].values():
                assert set(codes_of(answer)) <= listed, (path, set(codes_of(answer)) - listed)


# --- against a running daemon ---------------------------------------------------------------------------------------------------

class Prepared:
    """What the examples speak of, made real: a sale of that name, a token, an order."""

    def __init__(self, world):
        self.world = world
        self.sale = world.sale(stock=1000, slug="drop-11", per_buyer=2)
        token = self.sale.token()
        assert world.order(token).status == 201
        self.order = self.sale.orders()[0]["id"]
        self.values = {"token": token, "id": self.order}

    def fresh(self, operation_id):
        """For what ends things: a sale, a buyer of their own."""
        if operation_id in ("endSale", "putSale"):
            return {"slug": self.world.sale(stock=1000, per_buyer=2).slug}
        if operation_id == "revokeToken":
            self.sale.token("customer-4711")
        if operation_id in ("confirmOrder", "cancelOrder", "refundOrder"):
            token = self.sale.token()
            order = self.world.order(token).json()["id"]
            if operation_id == "refundOrder":
                self.world.ask("POST", f"/v1/orders/{order}/confirm")
            return {"id": order, "token": token}
        return {}


@pytest.fixture(scope="module")
def prepared(world):
    return Prepared(world)


def check_answer(name, what, operation, status, headers, body):
    assert str(status) in operation["responses"], (what, status, body)
    described = operation["responses"][str(status)]
    for header, rule in described.get("headers", {}).items():
        assert header in headers, (what, header)
        check(name, rule["schema"], int(headers[header]) if rule["schema"].get("type") == "integer" else headers[header])
    if "content" not in described:
        assert not body, (what, body)
        return
    media = (headers.get("Content-Type") or "").split(";")[0]
    kinds = described["content"]
    assert media in kinds or "*/*" in kinds, (what, media)
    schema = kinds.get(media, {}).get("schema")
    if schema and media.endswith("json"):
        check(name, schema, json.loads(body))


def bodies_of(operation):
    """All the bodies that the description shows, as keywords for World.control(); one that is none where there is none."""
    contents = operation.get("requestBody", {}).get("content", {})
    return [{"body": content["example"]} if media == JSON else {"raw": content["example"].encode(), "headers": {"Content-Type": media}}
            for media, content in contents.items()] or [{}]


CONTROL = [(method, path, operation) for method, path, operation in operations("control")]


@pytest.mark.parametrize("method, path, operation", CONTROL, ids=[operation["operationId"] for _, _, operation in CONTROL])
def test_the_control_api_answers_its_examples_as_described(world, prepared, method, path, operation):
    if is_stream(operation):
        pytest.skip("a stream that does not end; tests/e2e/test_operator.py and test_webhooks.py read them")
    values = {**prepared.values, **prepared.fresh(operation["operationId"])}
    for body in bodies_of(operation):
        reply = world.control(method.upper(), url_of(path, operation, values), **body)
        what = (method, path, body)
        check_answer("control", what, operation, reply.status, reply.headers, reply.body)
        # What is of a fleet is asked of one in tests/e2e/test_fleet_redis.py; this daemon is alone.
        if needs_fleet(operation):
            assert (reply.status, reply.code()) == (409, "no_fleet"), (what, reply)
        else:
            assert reply.status < 300, (what, reply)


PUBLIC = [(method, path, operation) for method, path, operation in operations("public")]


@pytest.mark.parametrize("method, path, operation", PUBLIC, ids=[operation["operationId"] for _, _, operation in PUBLIC])
def test_the_shop_answers_its_examples_as_described(world, prepared, method, path, operation):
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    values = {**prepared.values, **prepared.fresh(operation["operationId"])}
    answer = world.public(method.upper(), url_of(path, operation, values), content.get("example"))
    headers = {header.title().replace("Etag", "ETag"): value for header, value in answer.headers}
    check_answer("public", (method, path), operation, answer.status, headers, answer.body)
    assert answer.status < 300, answer


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_listener_serves_its_own_document(world, name):
    if name == "control":
        served = world.ask("GET", "/v1/openapi.json")
    else:
        served = world.public("GET", "/v1/openapi.json").json()
    assert served == DOCUMENTS[name]


def test_every_problem_has_its_page_at_both_listeners(world):
    """Where `type` leads to, and the list of all."""
    assert world.control("GET", "/v1/sales/none").json()["type"] == "/problems/unknown_sale"
    texts = re.findall(r'^\tX\("([a-z_]+)", "[^"]*", "((?:[^"\\]|\\.)*)"', (ROOT / "userspace/daemon/problems.h").read_text(encoding="utf-8"), re.M)
    assert len(texts) == len(dict(texts)) > 50
    for ask in (world.control, world.public):
        index = ask("GET", "/problems").body.decode()
        for code, meaning in texts:
            page = ask("GET", f"/problems/{code}")
            text = html.unescape(page.body.decode())
            assert page.status == 200 and code in text and meaning in text, (code, page)
            assert f"/problems/{code}" in index, code
        assert ask("GET", "/problems/no_such_code").status == 404


@pytest.mark.parametrize("path, body", [
    ("/v1/sales/drop-11", {"colour": "red"}), ("/v1/sales/drop-11", {"per_buyer": 0}), ("/v1/sales/drop-11", {"per_buyer": "2"}),
    ("/v1/sales/Drop", {"stock": 1, "opens_at": "2099-01-01T00:00:00Z", "ends_at": "2099-01-02T00:00:00Z"}),
])
def test_a_refused_request_is_described_too(world, prepared, path, body):
    reply = world.control("PUT", path, body)
    assert reply.status in (400, 422)
    check_answer("control", path, DOCUMENTS["control"]["paths"]["/v1/sales/{slug}"]["put"], reply.status, reply.headers, reply.body)


# --- refusals -----------------------------------------------------------------------------------------------------------------------

class Refusals:
    """Sends what is to be refused, holds each answer against the description, and remembers which code came from where."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.seen, self.used_key = set(), f"used-before-{name}"

    def send(self, operation_id, values, body=None, headers=(), query="", raw=None):
        """The code of the answer. `values` for the path and the query, `query` as it stands behind them."""
        method, path, operation = operation_of(self.name, operation_id)
        url = url_of(path, operation, values)
        url += ("&" if "?" in url else "?") + query if query else ""
        data = json.dumps(body).encode() if body is not None else raw or b""
        with self._connect() as connection:
            connection.send(talk.request(method.upper(), url, [*headers, ("Connection", "close")], data))
            answer = connection.receive_only()
        what = (operation_id, url[:100], data[:100], headers, str(answer))
        assert answer.status < 500, (what, answer)
        named = {header.title().replace("Etag", "ETag"): value for header, value in answer.headers}
        check_answer(self.name, what, operation, answer.status, named, answer.body)
        if answer.status >= 400:
            self.seen.add((operation_id, answer.code()))
        return answer.code()

    def _connect(self):
        return ControlConnection(self.world, "unix") if self.name == "control" else self.world.connect()

    def missing(self):
        described = {(operation["operationId"], code) for _, _, operation in operations(self.name)
                     for status, answer in operation["responses"].items() if status < "500" for code in codes_of(answer)}
        return described - self.seen

    def what_no_request_may_be(self, operation, values):
        """Of every route: what its schemas do not allow, and what is no request."""
        own, parameters = operation["operationId"], operation.get("parameters", ())
        schema, good = body_of(operation)
        described = {code for answer in operation["responses"].values() for code in codes_of(answer)}
        headers = {parameter["name"] for parameter in parameters if parameter["in"] == "header"}

        def send(**request):
            self.send(own, request.pop("values", values), **request)
        if schema:
            send(raw=b"{")
            for _, body in wrong_bodies(self.name, schema, good):
                send(body=body)
                if described & FIELD_CODES <= {code for operation_id, code in self.seen if operation_id == own}:
                    break
        for argument, text in wrong_arguments(self.name, operation):
            send(values={**values, argument: None}, query=f"{argument}={text}", body=good)
        if not schema and "unknown_field" in described:
            send(query="no-such-argument=1")
        for parameter in parameters:
            if parameter["in"] == "path":
                send(values={**values, parameter["name"]: "a" * 5000}, body=good)
                send(values={**values, parameter["name"]: NO_NAME}, body=good)
        send(headers=[("Content-Length", "5"), ("Content-Length", "6")])
        if "body_too_long" in described:
            send(headers=[("Content-Length", "2000000")])
        for header, value in (("Idempotency-Key", "x" * 65), ("Idempotency-Key", self.used_key), ("If-Match", '"0000000000000000"'), ("Last-Event-ID", "x")):
            if header in headers:
                send(body=good, headers=[(header, value)])


NO_NAME = "No_Name"  # of a sale, a list, an order, a node, a token
FIELD_CODES = {"unknown_field", "missing_field", "wrong_type", "out_of_range"}
ELSEWHERE = {  # described, and not provoked here: (route or None for all, code) and who does it
    (None, "no_fleet"): "test_the_control_api_answers_its_examples_as_described",
    (None, "wrong_node"): "test_wrong_node.py, test_fleet_homes.py",
    (None, "other_secret"): "test_fleet_homes.py",
    (None, "rate_limited"): "test_refusals.py, test_control.py; this shop has no limits",
    (None, "tokens_closed"): "test_page.py; this shop gives tokens to whoever asks",
    (None, "webhooks_off"): "test_webhooks.py; this shop posts",
    (None, "conflict"): "tests/unit/test_writer_query.c: two changes at the same moment",
    ("putSale", "too_many_sales"): "test_control.py",
    ("moveStock", "sale_ended"): "nobody: the gate has forgotten the sale, a day after its end",
    ("confirmOrder", "hold_expired"): "test_order_life.py",
    ("rotateKeys", "out_of_range"): "test_fleet_homes.py: of a node, in a fleet",
    ("fenceNode", "no_node"): "test_fleet_leases.py",
    ("fenceNode", "node_is_alive"): "test_fleet_leases.py",
    ("fenceNode", "unknown_sale"): "test_fleet_fence.py",
    **{("fenceNode", code): "test_hostile_control.py" for code in ("malformed_json", "unknown_field", "missing_field", "wrong_type", "out_of_range")},
}


def situations_of_control(world, send, sale, values):
    """What is refused for the state that things are in."""
    slug, order, none = values["slug"], values["id"], {**values, "slug": "never-made", "sale": "never-made", "id": "0" * 16}
    over, bare, full = world.sale(stock=1), world.sale(stock=0), world.sale(stock=1, token_multiplier=1)
    over.act("end")
    full.token()
    window = {"opens_at": rfc3339(sale.opens_at), "ends_at": rfc3339(sale.ends_at)}
    buyer = {"buyer": "somebody"}

    for route in ("getSale", "getStock", "pauseSale", "resumeSale", "endSale"):
        send(route, none)
    for route in ("pauseSale", "resumeSale"):
        send(route, {"slug": over.slug})
    send("putSale", none, window)
    send("putSale", values, {"stock": 5})
    send("putSale", {"slug": over.slug}, {"per_buyer": 2})
    send("moveStock", none, {"delta": 1})
    send("moveStock", values, {"delta": -1000000})
    send("issueToken", none, buyer)
    send("issueToken", values, {"buyer": values["buyer_of_order"]})
    for other in (bare, full, over):
        send("issueToken", {"slug": other.slug}, buyer)
    send("revokeBefore", none, {"issued_before": rfc3339(sale.opens_at)})
    send("revokeBefore", values, {"issued_before": rfc3339(sale.ends_at)})
    send("revokeToken", values, {"sale": "never-made", **buyer})
    send("revokeToken", values, {"sale": slug, **buyer})
    send("revokeToken", values, {"token": values["token"]})
    send("rotateKeys", values, {})
    send("rotateKeys", values, {})
    for route in ("getOrder", "confirmOrder", "cancelOrder", "refundOrder"):
        send(route, none)
    send("refundOrder", {"id": order})
    world.ask("POST", f"/v1/orders/{order}/confirm")
    world.ask("POST", f"/v1/orders/{order}/refund")
    for route in ("confirmOrder", "cancelOrder"):
        send(route, {"id": order})
    send("deleteEntry", {"list": "deny", "prefix": "192.0.2.99"})
    send("deleteLabel", {"list": "deny", "label": "never-given"})
    send("deleteLabel", {"list": "deny", "label": None})
    send("explain", {"ip": None})
    for entries in ([{"prefix": "no prefix"}], [{"prefix": "16.0.0.0/4"}]):
        send("putEntries", values, {"entries": entries})
    send("putEntries", values, raw=b"<xml/>", headers=[("Content-Type", "application/xml")])
    send("setAnswer", {"code": "sold_out"}, {"body": "x" * 1100, "content_type": "text/plain"})
    world.ask("PUT", "/v1/answers/sold_out", {"body": "x" * 800, "content_type": "text/plain"})
    send("setCors", values, {"cors_origin": "https://" + ".".join(["x" * 50] * 2) + ".example"})
    world.ask("DELETE", "/v1/answers/sold_out")


def situations_of_shop(world, send, sale, values):
    over, bare, full, later = world.sale(stock=1), world.sale(stock=1), world.sale(stock=1, token_multiplier=1), world.sale(opens_in=600)
    late = [one.token() for one in (over, later, bare)]
    assert world.order(bare.token()).status == 201
    over.act("end")
    full.token()
    fresh, buyer = sale.token(), {"buyer": "somebody"}
    revoked = Token.read(sale.token("who-was-revoked"))
    world.ask("POST", "/v1/tokens/revoke", {"token": revoked.text()})
    gone = sale.signed(fresh, issued_at=1_000_000_000, expires_at=1_000_003_600)
    again = sale.signed(values["token"], serial=Token.read(values["token"]).serial ^ 1)

    send("getSale", {"slug": "never-made"})
    send("askToken", {"slug": "never-made"}, buyer)
    send("askToken", values, {"buyer": values["buyer_of_order"]})
    send("askToken", values, {"buyer": "who-was-revoked"})
    for other in (bare, full, over):
        send("askToken", {"slug": other.slug}, buyer)
    for route in ("order", "getOrder", "cancelOrder"):
        send(route, {"token": gone})
        send(route, {"token": damaged(fresh)})
    for token in (*late, again, sale.token(network="192.0.2.7"), sale.signed(fresh, sale=4_000_000_001)):
        send("order", {"token": token})
    for route in ("getOrder", "cancelOrder"):
        send(route, {"token": fresh})
    world.ask("POST", f"/v1/orders/{values['id']}/confirm")
    send("cancelOrder", values)
    send("asset", {"name": "none.js"})
    send("problem", {"code": "none"})


@pytest.mark.parametrize("name, situations", [("control", situations_of_control), ("public", situations_of_shop)], ids=["control", "public"])
def test_each_described_refusal_is_provoked(world, name, situations):
    """Each code of 4xx that a route is said to answer, and it answers none that is not described."""
    refusals = Refusals(world, name)
    sale = world.sale(stock=30)
    buyer = sale.buyer()
    token = sale.token(buyer)
    assert world.order(token).status == 201
    values = {"slug": sale.slug, "sale": sale.slug, "id": sale.orders()[0]["id"], "token": token, "buyer_of_order": buyer, "from": None, "to": None}
    assert world.control("POST", f"{sale.path}/stock", {"delta": 1}, headers={"Idempotency-Key": refusals.used_key}).status == 200
    for method, path, operation in operations(name):
        if method != "options":
            refusals.what_no_request_may_be(operation, {**values, "id": 1} if "/nodes/" in path else values)
    situations(world, refusals.send, sale, values)
    missing = refusals.missing()
    left = {one for one in missing if one not in ELSEWHERE and (None, one[1]) not in ELSEWHERE}
    assert not left, "described, and never seen"
    described = {operation["operationId"] for _, _, operation in operations(name)}
    assert not {one for one in ELSEWHERE if one[0] in described and one not in missing}, "seen after all, or not described any more"
