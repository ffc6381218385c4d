"""The JSON Schemas of files of segments, templates, journeys, their cases and limits, for editors: segment.json,
template.json, journey.json, journey_cases.json and limits.json beside this file, made from `config.segments`,
`schemas.templates`, `schemas.journeys` and `schemas.journey_cases`.

    python -m docs.schemas.generate

A test keeps it true. What pydantic makes of the models says which keys there are; what the models check in code, such
as "exactly one of", is said again here. It refuses no file that Tidewire takes, except for keys without a value; what
it cannot say (how large a condition may be, that segments ask for each other in no circle, what stands in a template,
that the steps of a journey lead somewhere) `tidewire segments check`, `tidewire templates check` and `tidewire journeys
check` say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.segments import SegmentFile
from schemas.conditions import ATTRIBUTE, KINDS, LARGEST_NUMBER, LONGEST_NAME, LONGEST_TEXT, Did, Test
from schemas.journey_cases import DOES, CaseFile
from schemas.journey_cases import KINDS as LINES
from schemas.journeys import STEPS, JourneyFile, Limits
from schemas.templates import PARTS, TemplateFile

FILE = Path(__file__).parent / "segment.json"
TEMPLATE = Path(__file__).parent / "template.json"
JOURNEY = Path(__file__).parent / "journey.json"
CASES = Path(__file__).parent / "journey_cases.json"
LIMITS = Path(__file__).parent / "limits.json"

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MADE = "Made by `python -m docs.schemas.generate`; a test keeps it true."
HEAD = {"$schema": DIALECT, "$comment": f"{MADE} Words and edges: docs/segments.md.", "title": "A segment of Tidewire"}
OF_TEMPLATE = {"$schema": DIALECT, "$comment": f"{MADE} See docs/templates.md.", "title": "A template of Tidewire"}
OF_JOURNEY = {"$schema": DIALECT, "$comment": f"{MADE} See docs/journeys.md.", "title": "A journey of Tidewire"}
OF_CASES = {"$schema": DIALECT, "$comment": f"{MADE} See docs/journey-cases.md.",
            "title": "Cases of a journey of Tidewire"}  # fmt: skip
OF_LIMITS = {"$schema": DIALECT, "$comment": f"{MADE} See docs/journeys.md.",
             "title": "What holds for all journeys of Tidewire"}  # fmt: skip
_UNITS = "minutes?|hours?|days?|weeks?"
_SPAN = rf"^\s*[0-9]{{1,6}}\s+({_UNITS})\s*$"
_TESTS = tuple(field.alias or name for name, field in Test.model_fields.items())
_COUNTS = ("at_least", "at_most", "exactly", "total", "which")
_WINDOWS = ("within", "longer_ago", "since")
_NODES = {"all": "All", "any": "Any_", "not": "Not", "segment": "InSegment"}

Schema = dict[str, Any]


def content() -> str:
    """The file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def schema() -> Schema:
    made = SegmentFile.model_json_schema(by_alias=True)
    definitions = {name: _plain(each) for name, each in made.pop("$defs").items()}
    _refine(definitions)
    return {**HEAD, **_plain(made), "$defs": dict(sorted(definitions.items()))}


def template_content() -> str:
    """The file of templates."""
    return json.dumps(template_schema(), indent=2, ensure_ascii=False) + "\n"


def template_schema() -> Schema:
    made = TemplateFile.model_json_schema()
    definitions = {name: _plain(each) for name, each in made.pop("$defs").items()}
    whole = _plain(made)
    whole["properties"]["content"] |= {"additionalProperties": False}
    definitions["Content"]["dependentRequired"] = {"preheader": ["html"]}
    of_mail = {"required": ["subject"],
               "properties": {"subject": {"pattern": r"\S"}, "approved": False, "link": False}}  # fmt: skip
    of_sms = {"properties": {name: False for name in PARTS if name != "text"}}
    of_inbox = {"required": ["subject"],
                "properties": {"subject": {"pattern": r"\S"}, "preheader": False, "approved": False}}  # fmt: skip
    of_call = {"properties": {name: False for name in (*PARTS, "approved") if name != "text"}}
    whole["allOf"] = [
        _where("kind", "marketing", {"required": ["topic"], "properties": {"topic": {"minLength": 1}}}),
        _where("kind", "transactional", {"properties": {"topic": {"maxLength": 0}}}),
        _where("channel", "email", {"properties": {"content": {"additionalProperties": of_mail}}}),
        _where("channel", "sms", {"properties": {"content": {"additionalProperties": of_sms}}}),
        _where("channel", "call", {"properties": {"content": {"additionalProperties": of_call},
                                                  "kind": {"const": "transactional"}}}),
        _where("channel", "inbox", {"properties": {"content": {"additionalProperties": of_inbox}}}),
    ]
    return {**OF_TEMPLATE, **whole, "$defs": definitions}


def journey_content() -> str:
    """The file of journeys."""
    return json.dumps(journey_schema(), indent=2, ensure_ascii=False) + "\n"


def journey_schema() -> Schema:
    made = JourneyFile.model_json_schema(by_alias=True)
    definitions = {name: _plain(each) for name, each in made.pop("$defs").items()}
    whole = _plain(made)
    _refine(definitions)
    for name in ("Enter", "Again"):
        definitions[name] |= {"minProperties": 1, "maxProperties": 1}
    at = definitions["At"]
    no_date = {"days_before": {"const": 0}, "yearly": {"const": False}, "calendar": {"const": "solar"}}
    at["anyOf"] = [{"required": [name]} for name in ("at", "date")]
    at |= {"if": {"required": ["date"]}, "then": {"properties": {"days": {"maxItems": 0}}},
           "else": {"properties": no_date}}  # fmt: skip
    traits = definitions["Change"]["properties"]["traits"]["patternProperties"]
    for value in traits.values():  # null takes a trait away
        value["type"] = [*value["type"], "null"]
    for kind, step in STEPS.items():
        definitions[step.__name__]["required"] = sorted({*definitions[step.__name__]["required"], kind})
    for name in ("ExitStep", "SplitStep"):  # by which nothing follows
        del definitions[name]["properties"]["then"]
    return _of_spans({**OF_JOURNEY, **whole}, definitions)


def cases_content() -> str:
    """The file of cases of journeys."""
    return json.dumps(cases_schema(), indent=2, ensure_ascii=False) + "\n"


def cases_schema() -> Schema:
    made = CaseFile.model_json_schema(by_alias=True)
    definitions = {name: _plain(each) for name, each in made.pop("$defs").items()}
    for name, keys in (("CaseEvent", DOES), ("Line", tuple(LINES))):
        definitions[name]["oneOf"] = [{"required": [key]} for key in keys]
    for each in definitions["Line"]["properties"].values():
        if "anyOf" in each:
            each["anyOf"] = [kind for kind in each["anyOf"] if kind != {"type": "null"}]
    for name in ("Case", "CaseEvent", "Line"):
        for each in _schemas_in(definitions[name]):
            if "patternProperties" in each:
                each["additionalProperties"] = False
    return {**OF_CASES, **_plain(made), "$defs": dict(sorted(definitions.items()))}


def limits_content() -> str:
    """The file of what holds for all journeys."""
    return json.dumps(limits_schema(), indent=2, ensure_ascii=False) + "\n"


def limits_schema() -> Schema:
    made = Limits.model_json_schema(by_alias=True)
    definitions = {name: _plain(each) for name, each in made.pop("$defs").items()}
    return _of_spans({**OF_LIMITS, **_plain(made)}, definitions)


def _of_spans(whole: Schema, definitions: dict[str, Schema]) -> Schema:
    """Journeys count no days of the calendar, but their conditions do; and names that fit no pattern are no names."""
    of_conditions = {_NODES.get(kind, kind.capitalize()) for kind in KINDS} | {"Step", "Where", "Test"}
    for name, definition in (*definitions.items(), ("", whole)):
        for each in _schemas_in(definition):
            if each.get("$ref") == "#/$defs/Duration" and name not in of_conditions:
                each["$ref"] = "#/$defs/Span"
            if "patternProperties" in each:
                each["additionalProperties"] = False
    definitions["Span"] = _text(_SPAN, "2 hours")
    if "Condition" not in definitions:
        del definitions["Duration"]
    return {**whole, "$defs": dict(sorted(definitions.items()))}


def _where(name: str, value: str, then: Schema) -> Schema:
    return {"if": {"properties": {name: {"const": value}}, "required": [name]}, "then": then}


def _plain(made: Any, *, is_map: bool = False) -> Any:
    """What pydantic made, without what helps nobody: titles made of names, defaults, `null` for what is not said."""
    if isinstance(made, list):
        return [_plain(each) for each in made]
    if not isinstance(made, dict):
        return made
    if not is_map:
        said = [each for each in made.get("anyOf", ()) if each != {"type": "null"}]
        if len(said) == 1:
            made = {**said[0], **{key: value for key, value in made.items() if key != "anyOf"}}
        if len(made.get("oneOf", ())) == len(KINDS):
            about = {"description": made["description"]} if "description" in made else {}
            return {"$ref": "#/$defs/Condition", **about}
        made = {key: value for key, value in made.items() if key not in ("title", "default")}
    return {key: _plain(value, is_map=key in ("properties", "$defs")) for key, value in made.items()}


def _refine(definitions: dict[str, Schema]) -> None:
    """Say what pydantic cannot know: what the models check in code."""
    definitions["Condition"] = {
        "description": "Who is meant.",
        "type": "object",
        "oneOf": [{"$ref": f"#/$defs/{_NODES.get(kind, kind.capitalize())}"} for kind in KINDS],
    }
    definitions["Duration"] = _text(rf"^\s*[0-9]{{1,6}}\s+({_UNITS}|calendar days?)\s*$", "90 days", "3 calendar days")
    between_steps = _text(_SPAN, "2 hours")
    for name in ("Trait", "Attribute", "Context", "Where"):
        definitions[name] |= {"minProperties": 2, "maxProperties": 2}  # what is asked, and one test
    definitions["Attribute"]["properties"]["attribute"]["pattern"] = f"^{ATTRIBUTE}$"
    for name in ("within", "longer_ago"):  # properties are compared with a fixed time
        del definitions["Where"]["properties"][name]
    tests = {name: definitions["Where"]["properties"][name] for name in _TESTS
             if name in definitions["Where"]["properties"]}  # fmt: skip
    definitions["Test"] = {"type": "object", "properties": tests, "additionalProperties": False,
                           "minProperties": 1, "maxProperties": 1}  # fmt: skip
    for name, about in (("All", "All of these."), ("Any_", "At least one of these."), ("Not", "Not this.")):
        definitions[name]["description"] = about
    for name in {"Did", "Event", "Step", "Met", "Goal"} & definitions.keys():
        definitions[name]["properties"]["where"] = _wheres(definitions["Where"]["properties"]["property"]["pattern"])
        definitions[name]["properties"]["did"]["maxLength"] = LONGEST_NAME
    did = definitions["Did"]
    did["properties"]["at_least"]["minimum"] = 1
    did["allOf"] = [_at_most_one(_COUNTS), _at_most_one(_WINDOWS)]
    did["dependentRequired"] = {"longer_ago": ["which"]}
    did["dependentSchemas"] = {"which": {"anyOf": [{"required": [name]} for name in _WINDOWS]}}
    definitions["Total"]["oneOf"] = [{"required": [name]} for name in ("at_least", "less_than")]
    definitions["Step"]["properties"]["within"] |= between_steps
    definitions["Step"]["properties"]["within"].pop("$ref")
    sequence = definitions["Sequence"]
    sequence["properties"]["sequence"] |= {"prefixItems": [{"$ref": "#/$defs/Event"}]}  # no step comes before the first
    sequence["not"] = {"required": ["within", "since"]}
    for definition in definitions.values():
        for each in _schemas_in(definition):
            _bound(each)


def _wheres(path: str) -> Schema:
    """The short form, by path; one test; or several."""
    by_path = {
        "type": "object", "minProperties": 1, "maxProperties": _most_wheres(), "not": {"required": ["property"]},
        "propertyNames": {"pattern": path},
        "additionalProperties": {"anyOf": [{"type": ["string", "number", "boolean"]}, {"$ref": "#/$defs/Test"}]},
    }  # fmt: skip
    several = {"type": "array", "items": {"$ref": "#/$defs/Where"}, "maxItems": _most_wheres()}
    return {"description": "Tests on properties, all of which must pass: `{category: Skin care}`.",
            "anyOf": [by_path, {"$ref": "#/$defs/Where"}, several]}  # fmt: skip


def _most_wheres() -> int:
    (most,) = [limit.max_length for limit in Did.model_fields["where"].metadata if hasattr(limit, "max_length")]
    return int(most)


def _at_most_one(names: Sequence[str]) -> Schema:
    one_of = [{"required": [name]} for name in names]
    return {"oneOf": [*one_of, {"not": {"anyOf": one_of}}]}


def _text(pattern: str, *examples: str) -> Schema:
    return {"type": "string", "pattern": pattern, "examples": list(examples)}


def _schemas_in(schema: Any) -> list[Schema]:
    """A schema, and all that are part of it."""
    if isinstance(schema, list):
        return [found for each in schema for found in _schemas_in(each)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(found for each in schema.values() for found in _schemas_in(each))]


def _bound(schema: Schema) -> None:
    """The limits of single values."""
    kind = schema.get("type")
    if kind == "number" or (isinstance(kind, list) and "number" in kind):
        schema.setdefault("minimum", -int(LARGEST_NUMBER))
        schema.setdefault("maximum", int(LARGEST_NUMBER))
    if (kind == "string" and "minLength" in schema) or (isinstance(kind, list) and "string" in kind):
        schema.setdefault("maxLength", LONGEST_TEXT)
    if schema.get("format") == "date":
        schema |= {"pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "examples": ["2026-01-01"]}


if __name__ == "__main__":
    FILE.write_text(content(), encoding="utf-8")
    TEMPLATE.write_text(template_content(), encoding="utf-8")
    JOURNEY.write_text(journey_content(), encoding="utf-8")
    LIMITS.write_text(limits_content(), encoding="utf-8")
    CASES.write_text(cases_content(), encoding="utf-8")
