"""The reference of the topics, made from `schemas.topics`: README.md and one JSON Schema for each.

    python -m docs.topics.generate

A test keeps the files true.
"""

from __future__ import annotations

import json
from pathlib import Path

from schemas.times import DAY_MS
from schemas.topics import TOPICS, Topic, json_schema

FOLDER = Path(__file__).parent

HEAD = """\
<!-- made by `python -m docs.topics.generate`; a test keeps it true -->
# The topics

The topics are Tidewire's public contract: read any of them, and write to `events`. They are the same on both grounds.
The person key is `workspace/u:<userId>` or `workspace/a:<anonymousId>`; records are spread over partitions by Kafka's
default hash of the key. Each has a JSON Schema beside this page. MessagePack values have the structure their schema
shows, as arrays where it says so.

`tidewire topics create` makes them, `tidewire topics check` says what is wrong with those that exist.

| topic | key | value | kept | what |
|---|---|---|---|---|
"""


def files() -> dict[str, str]:
    """Name and content of every file of the reference."""
    made = {f"{topic.name}.json": _schema(topic) for topic in TOPICS.values()}
    made["README.md"] = HEAD + "".join(map(_row, TOPICS.values()))
    return made


def _schema(topic: Topic) -> str:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"Value of topic {topic.name}, {topic.encoding}. Made by `python -m docs.topics.generate`.",
        **json_schema(topic),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _row(topic: Topic) -> str:
    value = f"[{'MessagePack' if topic.encoding == 'msgpack' else 'JSON'}]({topic.name}.json)"
    kept = "the newest of each key, for ever" if topic.retention_ms is None else f"{topic.retention_ms // DAY_MS} days"
    partitions = ", as many partitions as `events`" if topic.with_events and topic.name != "events" else ""
    return f"| `{topic.name}` | {topic.key} | {value} | {kept}{partitions} | {topic.about} |\n"


if __name__ == "__main__":
    for name, content in files().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
