"""Which changes of the API break callers."""

from copy import deepcopy
from typing import Any

import pytest

from tests.openapi.changes import breaks
from tests.openapi.document import kept

Json = dict[str, Any]
ORDER: Json = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {"type": "string", "minLength": 1, "maxLength": 200},
        "seconds": {"type": "integer", "minimum": 1},
        "priority": {"enum": ["high", "low"], "type": "string"},
        "note": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]},
        "input": {"type": "object", "additionalProperties": True},
    },
}
JOB: Json = {
    "type": "object",
    "required": ["id", "status", "error"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "status": {"$ref": "#/components/schemas/Status"},
        "error": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "price": {"type": "number"},
        "tries": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}},
    },
}
DOCUMENT: Json = {
    "paths": {
        "/jobs": {
            "post": {
                "operationId": "create_job",
                "security": [{"Key": []}, {"Token": []}],
                "parameters": [{"name": "wait", "in": "query", "schema": {"type": "integer", "maximum": 60}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}}},
                "responses": {
                    "202": {
                        "headers": {"Location": {}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}},
                    },
                    "402": {"content": {"application/problem+json": {"examples": {"no_money": {}, "too_dear": {}}}}},
                },
            }
        },
        "/events": {
            "get": {
                "operationId": "follow",
                "responses": {
                    "200": {
                        "content": {
                            "text/event-stream": {
                                "schema": {"type": "string"},
                                "itemSchema": {
                                    "type": "object",
                                    "properties": {
                                        "data": {
                                            "type": "string",
                                            "contentSchema": {"$ref": "#/components/schemas/Event"},
                                        }
                                    },
                                },
                            }
                        }
                    }
                },
            }
        },
    },
    "webhooks": {
        "job.done": {
            "post": {
                "operationId": "job.done",
                "parameters": [{"name": "webhook-id", "in": "header", "schema": {"type": "string"}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}}},
            }
        }
    },
    "components": {
        "schemas": {
            "Order": ORDER,
            "Job": JOB,
            "Event": {"type": "object", "properties": {"number": {"type": "integer"}}},
            "Status": {"type": "string", "enum": ["queued", "done"]},
        }
    },
}
OPERATION = "paths /jobs post"
ORDERED = "components schemas Order"
ANSWERED = "components schemas Job"
GONE = object()


def changed(where: str, value: Any) -> Json:
    """The document with *value* at *where*, steps between spaces."""
    document = deepcopy(DOCUMENT)
    *steps, last = where.split()
    part: Any = document
    for step in steps:
        part = part[int(step)] if isinstance(part, list) else part.setdefault(step, {})
    if value is GONE:
        del part[int(last) if isinstance(part, list) else last]
    else:
        part[last] = value
    return document


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("paths /jobs", GONE, "POST /jobs: is gone"),
        ("webhooks job.done", GONE, "POST job.done: is gone"),
        (f"{OPERATION} operationId", "make_job", "its id create_job is now make_job"),
        (f"{OPERATION} security", [{"Key": []}], "no longer open to Token"),
        (f"{OPERATION} parameters", [], "no longer takes query parameter wait"),
        (f"{OPERATION} parameters 0 required", True, "needs query parameter wait now"),
        (f"{OPERATION} parameters 0 schema maximum", 30, "maximum is now 30"),
        (f"{OPERATION} requestBody required", True, "needs a body now"),
        (f"{OPERATION} requestBody content", {"text/plain": {}}, "no longer takes application/json"),
        (f"{OPERATION} responses 402", GONE, "is no longer answered with 402"),
        (f"{OPERATION} responses 202 headers", {}, "no longer has the header Location"),
        (f"{OPERATION} responses 202 content", {"text/plain": {}}, "no longer comes as application/json"),
        (
            f"{OPERATION} responses 402 content application/problem+json examples no_money",
            GONE,
            "402: no longer has the code no_money",
        ),
        (f"{ORDERED} required", ["model", "seconds"], "body/seconds: is needed now"),
        (f"{ORDERED} properties note", GONE, "body/note: is gone"),
        (f"{ORDERED} properties model minLength", 3, "body/model: minLength is now 3"),
        (f"{ORDERED} properties model pattern", "^x$", "body/model: must match another pattern now"),
        (f"{ORDERED} properties model format", "uri", "body/model: its format any is now uri"),
        (f"{ORDERED} properties model enum", ["kling"], "body/model: takes only certain words now"),
        (f"{ORDERED} properties priority enum", ["low"], "body/priority: no longer knows 'high'"),
        (f"{ORDERED} properties seconds type", "string", "body/seconds: no longer takes integer"),
        (f"{ORDERED} properties note", {"type": "string", "maxLength": 9}, "body/note: no longer takes null"),
        (f"{ORDERED} properties input additionalProperties", False, "body/input: takes no other fields now"),
        (f"{ORDERED} properties input patternProperties", {"^a": {}}, "body/input: the names of its fields must"),
        (f"{ANSWERED} properties id", GONE, "202/id: is gone"),
        (f"{ANSWERED} properties id", GONE, "POST job.done/id: is gone"),
        ("webhooks job.done post parameters", [], "POST job.done: no longer has the header parameter webhook-id"),
        (f"{ANSWERED} required", ["id", "status"], "202/error: may be missing now"),
        (f"{ANSWERED} properties id", {"type": "string"}, "202/id: its format uuid is now any"),
        (f"{ANSWERED} properties id type", ["string", "null"], "202/id: may now be null"),
        (f"{ANSWERED} properties price", {}, "202/price: may now be anything"),
        (f"{ANSWERED} properties tries items", {"type": "string"}, "202/tries/*: may now be string"),
        ("components schemas Status enum", ["queued"], "202/status: no longer knows 'done'"),
        ("components schemas Event properties number", GONE, "GET /events: 200/data/*/number: is gone"),
    ],
)
def test_what_callers_rely_on_is_missed(where, value, told):
    assert any(told in line for line in breaks(DOCUMENT, changed(where, value)))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("paths /more", {"get": {"operationId": "more", "responses": {}}}),
        ("webhooks job.more", {"post": {"operationId": "job.more"}}),
        (f"{OPERATION} summary", "other words"),
        (f"{OPERATION} security", [{"Key": []}, {"Token": []}, {"Cookie": []}]),
        (f"{OPERATION} parameters 0 schema maximum", 90),
        (f"{OPERATION} parameters 0 schema", {"type": "number"}),
        (f"{OPERATION} responses 409", {"description": "Conflict"}),
        (f"{OPERATION} responses 202 headers More", {}),
        (f"{OPERATION} responses 402 content application/problem+json examples more", {}),
        (f"{ORDERED} required", []),
        (f"{ORDERED} properties more", {"type": "string"}),
        (f"{ORDERED} properties model", {"type": "string"}),
        (f"{ORDERED} properties priority enum", ["high", "low", "lower"]),
        (f"{ORDERED} properties seconds", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (f"{ANSWERED} properties more", {"type": "string"}),
        (f"{ANSWERED} properties error", {"type": "string"}),
        (f"{ANSWERED} properties price", {"type": "integer"}),
        (f"{ANSWERED} required", ["id", "status", "error", "price"]),
        ("components schemas Status enum", ["queued", "done", "paused"]),
    ],
)
def test_what_is_added_or_let_go_of_breaks_nobody(where, value):
    assert breaks(DOCUMENT, changed(where, value)) == []


def test_a_shape_is_the_same_by_whatever_name():
    document = deepcopy(DOCUMENT)
    document["components"]["schemas"]["Answer"] = document["components"]["schemas"].pop("Job")
    for part in (document["paths"]["/jobs"]["post"]["responses"]["202"], document["webhooks"]["job.done"]["post"]):
        content = part.get("content") or part["requestBody"]["content"]
        content["application/json"]["schema"]["$ref"] = "#/components/schemas/Answer"
    document["components"]["schemas"]["Answer"]["properties"]["tries"]["items"]["$ref"] = "#/components/schemas/Answer"

    assert breaks(DOCUMENT, document) == []


def test_in_our_own_document_a_lost_answer_is_noticed_wherever_it_is():
    before = kept()
    for path, item in before["paths"].items():
        for method, operation in item.items():
            for code in operation["responses"]:
                now = {**before, "paths": {**before["paths"], path: deepcopy(item)}}
                del now["paths"][path][method]["responses"][code]
                assert breaks(before, now) == [f"{method.upper()} {path}: is no longer answered with {code}"]
                break
