"""The API described as OpenAPI 3.1, as it is: served at /openapi.json, and what schemathesis tests against.

An event that breaks a rule is answered 200 all the same (it is in topic `rejected`), so the body of a call is described
as any JSON object, and the fields by what is made of them.
"""

from __future__ import annotations

from typing import Any

from schemas.event import (
    EVENT_TYPES,
    LARGEST_BATCH_BYTES,
    LARGEST_EVENT_BYTES,
    LONGEST_MESSAGE_ID,
    LONGEST_NAME,
    MOST_EVENTS_IN_BATCH,
)
from schemas.keys import LONGEST_ID
from web.collector.ingest import PATHS, Path

Json = dict[str, Any]

_REQUIRED = {
    "track": "`event`, and `userId` or `anonymousId`",
    "group": "`groupId`, and `userId` or `anonymousId`",
    "alias": "`previousId` and `userId`",
}
_ABOUT = {
    "track": "Something a person did.",
    "identify": "What is known of a person.",
    "page": "A person saw a page.",
    "screen": "A person saw a screen of an app.",
    "group": "A person belongs to a company or another group.",
    "alias": "Two ids are one person.",
}


def openapi() -> Json:
    """The document."""
    paths: Json = {}
    for name, path in PATHS.items():
        operation = _pixel(path) if path.is_pixel else _batch() if path.call == "" else _call(path.call)
        operation["operationId"] = name.strip("/").replace("/", "_")
        paths[name] = {"get" if path.is_pixel else "post": operation}
    paths["/v1/projects/{writeKey}/settings"] = {"get": _browser_settings()}
    paths["/healthz"] = {"get": _plain("healthz", "The process answers.", {"200": _text("It does.")})}
    paths["/readyz"] = {
        "get": _plain("readyz", "Whether events can be taken now.", {"200": _ready("Yes."), "503": _ready("No.")})
    }
    paths["/metrics"] = {"get": _plain("metrics", "Metrics for Prometheus.", {"200": _text("The metrics.")})}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidewire collector",
            "version": "1",
            "description": "Segment's HTTP Tracking API. 200 means: every event is stored durably, the good ones in "
            "topic `events`, the refused ones with their reason in topic `rejected`. Content-Type is not looked at, "
            "gzip is known by its first bytes.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "The write key is the user name."},
                "query": {"type": "apiKey", "in": "query", "name": "writeKey"},
            },
            "schemas": {"Event": _event(), "Batch": _batch_body(), "Taken": _taken(), "Refusal": _refusal()},
        },
    }


def _event() -> Json:
    def field(about: str) -> Json:
        return {"description": about}

    return {
        "type": "object",
        "description": f"One call, of at most {LARGEST_EVENT_BYTES} bytes. Unknown keys are kept.",
        "properties": {
            "type": field(f"In a batch: one of {', '.join(EVENT_TYPES)}."),
            "userId": field(f"Text or a number, at most {LONGEST_ID} characters."),
            "anonymousId": field(f"Text or a number, at most {LONGEST_ID} characters."),
            "messageId": field(f"At most {LONGEST_MESSAGE_ID} characters; one seen within 24 hours is dropped."),
            "event": field(f"Name of a track call, at most {LONGEST_NAME} characters."),
            "name": field(f"Name of a page or screen, at most {LONGEST_NAME} characters."),
            "category": field(f"Category of a page or screen, at most {LONGEST_NAME} characters."),
            "groupId": field("Of a group call."),
            "previousId": field("Of an alias call."),
            "properties": field("An object."),
            "traits": field("An object."),
            "context": field("An object."),
            "integrations": field("An object."),
            "timestamp": field("When it happened, by the client's clock: ISO 8601."),
            "originalTimestamp": field("The same; taken where there is no timestamp."),
            "sentAt": field("When the request left, by the client's clock: ISO 8601."),
            "writeKey": field("The write key, where neither header nor query has it."),
        },
        "examples": [
            {"userId": "u-17", "event": "Order Completed", "messageId": "m-1", "properties": {"total": 19.9}}
        ],
    }  # fmt: skip


def _batch_body() -> Json:
    return {
        "type": "object",
        "required": ["batch"],
        "properties": {
            "batch": {"type": "array", "maxItems": MOST_EVENTS_IN_BATCH, "items": {},
                      "description": "Events; each is judged alone."},
            "context": {"type": ["object", "null"], "description": "Merged into each event's; its own keys win."},
            "integrations": {"type": ["object", "null"], "description": "Merged into each event's; its own keys win."},
            "sentAt": {"description": "For the events that have none."},
            "writeKey": {"description": "The write key, where neither header nor query has it."},
        },
        "examples": [{"batch": [{"type": "identify", "userId": "u-17", "traits": {"plan": "pro"}}]}],
    }  # fmt: skip


def _taken() -> Json:
    return {"type": "object", "required": ["success"], "properties": {"success": {"const": True}}}


def _refusal() -> Json:
    return {
        "type": "object",
        "required": ["success", "message"],
        "properties": {"success": {"const": False}, "message": {"type": "string"}},
    }


def _json(about: str, schema: str, headers: Json | None = None) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": about, "content": content, **({"headers": headers} if headers else {})}


def _text(about: str) -> Json:
    return {"description": about, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _ready(about: str) -> Json:
    types = {"ready": {"type": "boolean"}, "log": {"type": "string"}, "lag": {"type": "integer"}}
    schema = {"type": "object", "required": list(types), "properties": types}
    return {"description": about, "content": {"application/json": {"schema": schema}}}


def _plain(name: str, about: str, responses: Json) -> Json:
    return {"operationId": name, "summary": about, "responses": responses}


def _answers(ok: Json) -> Json:
    later = {"Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer", "minimum": 1}}}
    return {
        "200": ok,
        "400": _json("Not JSON, not of this shape, or too large.", "Refusal"),
        "401": _json("No write key, or one that is not known.", "Refusal"),
        "403": _json("The write key may not be used by pages of this origin.", "Refusal"),
        "408": _json("The body did not come in time.", "Refusal"),
        "429": _json("The write key sends too fast: the same again, later.", "Refusal", later),
        "503": _json("The events cannot be stored now: the same again, later.", "Refusal", later),
    }


_SECURITY: list[Json] = [{"basic": []}, {"query": []}]


def _call(call: str) -> Json:
    required = _REQUIRED.get(call, "`userId` or `anonymousId`")
    return {
        "summary": f"{_ABOUT[call]} Needs {required}.",
        "security": _SECURITY,
        "requestBody": _body("Event"),
        "responses": _answers(_json("Stored.", "Taken")),
    }


def _batch() -> Json:
    return {
        "summary": f"Several calls at once, {LARGEST_BATCH_BYTES} bytes at most, inflated.",
        "security": _SECURITY,
        "requestBody": _body("Batch"),
        "responses": _answers(_json("Stored.", "Taken")),
    }


def _body(schema: str) -> Json:
    described = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"required": True, "content": {"application/json": described}}


def _pixel(path: Path) -> Json:
    data = {
        "name": "data", "in": "query", "required": False, "schema": {"type": "string"},
        "description": "The whole event as Base64 of a JSON object. Or one parameter for each key, such as "
                       "`event` or `context.page.title`.",
    }  # fmt: skip
    gif = {"description": "Stored.", "content": {"image/gif": {"schema": {"type": "string", "format": "binary"}}}}
    return {
        "summary": f"{_ABOUT[path.call]} Answered with an image of one pixel.",
        "security": _SECURITY,
        "parameters": [data],
        "responses": _answers(gif),
    }


def _browser_settings() -> Json:
    key = {"name": "writeKey", "in": "path", "required": True, "schema": {"type": "string"}}
    schema = {"type": "object", "required": ["integrations"], "properties": {"integrations": {"type": "object"}}}
    found = {"description": "The settings.", "content": {"application/json": {"schema": schema}}}
    return {
        "operationId": "browser_settings",
        "summary": "What Segment's browser SDK asks for before it sends anything.",
        "parameters": [key],
        "responses": {"200": found, "404": _json("No such write key.", "Refusal")},
    }
