# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""The two documents of the API as the tests use them: which routes there are, what each takes, what each answers; and, made from the schemas,
what each must refuse.

So a route or a field that is added is tried by every test that goes through them all, without a list that somebody must remember.
"""
import copy
import datetime
import json
import pathlib
import re
import urllib.parse

import jsonschema

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = {"get", "put", "post", "delete", "patch", "options"}
DOCUMENTS = {name: json.loads((ROOT / f"docs/openapi-{name}.json").read_text(encoding="utf-8")) for name in ("public", "control")}
JSON, PROBLEM = "application/json", "application/problem+json"


def operations(name):
    for path, item in DOCUMENTS[name]["paths"].items():
        for method, operation in item.items():
            if method in METHODS:
                yield method, path, operation


def operation_of(name, operation_id):
    """(method, path, operation)"""
    return next(found for found in operations(name) if found[2]["operationId"] == operation_id)


def resolve(name, schema):
    """The schema that a reference stands for."""
    while "$ref" in schema:
        node = DOCUMENTS[name]
        for part in schema["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        schema = node
    return schema


FORMATS = jsonschema.FormatChecker()


@FORMATS.checks("date-time", raises=ValueError)
def is_time(value):
    """RFC 3339. Without a package that Debian has not installed by itself, jsonschema takes any text for a time."""
    if not isinstance(value, str):
        return True
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value):
        return False
    return bool(datetime.datetime.fromisoformat(value[:19]))


def validator(name, schema):
    """With the components at hand, so that references resolve."""
    return jsonschema.Draft202012Validator({"components": DOCUMENTS[name]["components"], **schema}, format_checker=FORMATS)


def check(name, schema, value):
    validator(name, schema).validate(value)


def url_of(path, operation, values):
    """With the examples of the parameters, or `values` where they have one."""
    query = []
    for parameter in operation.get("parameters", ()):
        value = values.get(parameter["name"], parameter.get("example"))
        if parameter["in"] == "path":
            path = path.replace("{%s}" % parameter["name"], urllib.parse.quote(str(value), safe=""))
        elif parameter["in"] == "query" and value is not None:
            query.append(f"{parameter['name']}={urllib.parse.quote(str(value))}")
    return path + ("?" + "&".join(query) if query else "")


def body_of(operation, media=JSON):
    """(schema, example) of what a route takes; (None, None) if it takes nothing of that kind."""
    content = operation.get("requestBody", {}).get("content", {}).get(media, {})
    return content.get("schema"), copy.deepcopy(content.get("example"))


def codes_of(answer):
    """The problem codes that a described answer may have."""
    problem = answer.get("content", {}).get(PROBLEM)
    return problem["schema"]["allOf"][1]["properties"]["code"]["enum"] if problem else []


def needs_fleet(operation):
    return "no_fleet" in codes_of(operation["responses"].get("409", {}))


def is_stream(operation):
    return "text/event-stream" in operation["responses"].get("200", {}).get("content", {})


# --- what must be refused -------------------------------------------------------------------------------------------------------------------------
# Of every JSON type and at every edge; a schema tells which of them it does not allow.
STRANGE = [None, True, False, 0, -1, 1, 1.5, -0.5, -0.001, 1e300, 2 ** 31, -2 ** 31, 2 ** 53, 2 ** 53 + 1, -2 ** 53, 2 ** 63 - 1, -2 ** 63, "", "1", "x", "true", "now",
           "x" * 5000, "\t" * 5000, "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "-2026-01-01T00:00:00Z",
           "2026-01-01T00:00:00Z\n", [], {}, [1], ["x"], [[]], [None], {"nonsense": 1}]


def wrong_values(name, schema, good):
    """Values that `schema` does not allow: the whole, and, inside of what it does allow, each part by turns. `good` is one that it allows."""
    schema = resolve(name, schema)
    judge = validator(name, schema)
    own = [schema[edge] + step for edge, step in (("minimum", -1), ("maximum", 1)) if edge in schema]
    own += ["x" * (schema["maxLength"] + 1)] if "maxLength" in schema else []
    for value in [*STRANGE, *own]:
        if not judge.is_valid(value):
            yield value
    if schema.get("type") == "integer":
        yield 1.0  # an integer to JSON Schema, and none to the daemon
    if schema.get("format") == "date-time":
        yield "9999-12-31T23:59:59Z"  # more nanoseconds since 1970 than 64 bits hold
    if schema.get("type") == "array":
        first, *rest = good or [None]
        for value in wrong_values(name, schema["items"], first):
            yield [value, *rest]
    if isinstance(good, dict):
        for _, value in wrong_bodies(name, schema, good):
            yield value


def branches(name, schema):
    """The objects that a schema may stand for: itself, or those of its oneOf."""
    schema = resolve(name, schema)
    return [branch for part in schema.get("oneOf", [schema]) for branch in [resolve(name, part)] if branch.get("type") == "object"]


def wrong_bodies(name, schema, good):
    """(field, body): an object that is allowed but for that one field."""
    for branch in branches(name, schema):
        for field, part in branch.get("properties", {}).items():
            base = {key: value for key, value in good.items() if key in branch["properties"]}
            part = resolve(name, part)
            for value in wrong_values(name, part, base.get(field, {} if part.get("type") == "object" else None)):
                yield field, {**base, field: value}
        for field in branch.get("required", ()):
            if field in good:
                yield field, {key: value for key, value in good.items() if key != field}
        if branch.get("additionalProperties") is False:
            yield "no-such-field", {**good, "no-such-field": 1}


# What is no number, no word that is known, no time: as it stands in a query.
STRANGE_TEXTS = ["", "x", "-1", "0", "1e3", "1.5", "99999999999999999999", "%00", "x" * 3000, "none-such", "now", "2026-01-01", "%zz"]


def wrong_arguments(name, operation):
    """(argument, text for a query) that the schema of that argument does not allow. Text without a rule may be anything, so it is only broken."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "query" or parameter.get("allowEmptyValue"):
            continue  # is there or not, whatever it says
        schema, judge = parameter["schema"], validator(name, parameter["schema"])
        for text in [*STRANGE_TEXTS, *(str(schema[edge] + step) for edge, step in (("minimum", -1), ("maximum", 1)) if edge in schema)]:
            is_number = re.fullmatch(r"-?\d+(\.\d+)?", text)
            value = json.loads(text) if is_number and schema["type"] != "string" else text
            if text[:1] == "%" or not judge.is_valid(value):
                yield parameter["name"], text
