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

from api import DOCUMENTS, JSON, ROOT, check, codes_of, is_stream, needs_fleet, operations, url_of
from world import World

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
