# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The descriptions of the API: well-formed, complete against the tables of routes, and true of a running daemon.

Every request example is sent, and every answer must be one that is described: status, headers, and a body that its schema allows to the
last field.
"""
import json
import pathlib
import re
import urllib.parse

import jsonschema
import pytest

from world import World

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = {"get", "put", "post", "delete", "patch", "options"}
DOCUMENTS = {name: json.loads((ROOT / f"docs/openapi-{name}.json").read_text(encoding="utf-8")) for name in ("public", "control")}
TABLES = {"public": "userspace/daemon/http_public.c", "control": "userspace/daemon/control.c"}


def operations(name):
    for path, item in DOCUMENTS[name]["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield method, path, operation


def schema_of(name, schema):
    """With the components at hand, so that references resolve."""
    return {"components": DOCUMENTS[name]["components"], **schema}


def check(name, schema, value):
    jsonschema.Draft202012Validator(schema_of(name, schema), format_checker=jsonschema.FormatChecker()).validate(value)


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
def test_every_example_fits_its_schema(name):
    seen = 0
    for _, _, operation in operations(name):
        contents = [part.get("content", {}) for part in [operation.get("requestBody", {}), *operation["responses"].values()]]
        for content in contents:
            for media in content.values():
                if "example" in media:
                    check(name, media["schema"], media["example"])
                    seen += 1
        for parameter in operation.get("parameters", ()):
            if "example" in parameter:
                check(name, parameter["schema"], parameter["example"])
                seen += 1
    assert seen > 5


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
                problem = answer.get("content", {}).get("application/problem+json")
                codes = problem["schema"]["allOf"][1]["properties"]["code"]["enum"] if problem else []
                assert set(codes) <= listed, (path, set(codes) - listed)


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


def url_of(path, operation, values):
    query = []
    for parameter in operation.get("parameters", ()):
        value = values.get(parameter["name"], parameter.get("example"))
        if parameter["in"] == "path":
            path = path.replace("{%s}" % parameter["name"], urllib.parse.quote(str(value), safe=""))
        elif parameter["in"] == "query" and value is not None:
            query.append(f"{parameter['name']}={urllib.parse.quote(str(value))}")
    return path + ("?" + "&".join(query) if query else "")


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


def needs_fleet(operation):
    problem = operation["responses"].get("409", {}).get("content", {}).get("application/problem+json")
    return bool(problem) and "no_fleet" in problem["schema"]["allOf"][1]["properties"]["code"]["enum"]


CONTROL = [(method, path, operation) for method, path, operation in operations("control")]


@pytest.mark.parametrize("method, path, operation", CONTROL, ids=[operation["operationId"] for _, _, operation in CONTROL])
def test_the_control_api_answers_its_examples_as_described(world, prepared, method, path, operation):
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
        pytest.skip("a stream that does not end; tests/e2e/test_operator.py and test_webhooks.py read them")
    values = {**prepared.values, **prepared.fresh(operation["operationId"])}
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    reply = world.control(method.upper(), url_of(path, operation, values), content.get("example"))
    what = (method, path)
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


def test_a_problem_leads_to_its_page(world):
    problem = world.control("GET", "/v1/sales/none").json()
    assert problem["type"] == "/problems/unknown_sale"
    for page in (world.control("GET", problem["type"]).body.decode(), world.public("GET", problem["type"]).body.decode()):
        assert "unknown_sale" in page and "no sale of that name" in page


@pytest.mark.parametrize("path, body", [
    ("/v1/sales/drop-11", {"colour": "red"}), ("/v1/sales/drop-11", {"per_buyer": 0}), ("/v1/sales/drop-11", {"per_buyer": "2"}),
    ("/v1/sales/Drop", {"stock": 1, "opens_at": "2099-01-01T00:00:00Z", "ends_at": "2099-01-02T00:00:00Z"}),
])
def test_a_refused_request_is_described_too(world, prepared, path, body):
    reply = world.control("PUT", path, body)
    assert reply.status in (400, 422)
    check_answer("control", path, DOCUMENTS["control"]["paths"]["/v1/sales/{slug}"]["put"], reply.status, reply.headers, reply.body)
