"""The past, for dry runs: all events of a workspace, in the order in which they count (`streams.dry_run.moment_of`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from schemas.coupons import HISTORY_MS
from schemas.errors import Refused, TidewireError
from schemas.event import Event, check_event
from schemas.intake import Arrival, read_event
from schemas.keys import WORKSPACE_PATTERN
from schemas.times import HOUR_MS, from_ms
from streams.dry_run import moment_of
from streams.jsonlines import CallReader, Line

ROWS_AT_ONCE = 50_000  # of one query, as far as hours allow
SOURCE_OF_FILE = "file"
Query = Callable[[str], Sequence[Mapping[str, Any]]]

_MOMENT = (f"if(toUnixTimestamp64Milli(received_at) - toUnixTimestamp64Milli(timestamp) > {HISTORY_MS}, "
           "toUnixTimestamp64Milli(timestamp), toUnixTimestamp64Milli(received_at))")  # fmt: skip
_HOURS = """
SELECT intDiv({moment}, {hour}) AS hour, count() AS events FROM events FINAL
WHERE workspace = '{workspace}' GROUP BY hour HAVING hour <= {last} ORDER BY hour
"""
_EVENTS = """
SELECT message_id, source, type, event, name, category, user_id, anonymous_id, group_id, previous_id, attempt, flags,
    toUnixTimestamp64Milli(timestamp) AS at_ms, toUnixTimestamp64Milli(received_at) AS received_ms,
    toString(properties) AS properties, context, traits
FROM events FINAL
WHERE workspace = '{workspace}' AND intDiv({moment}, {hour}) BETWEEN {first} AND {last}
ORDER BY {moment}, message_id
"""
_DOT = b"%2E"  # as ClickHouse has it in the keys of JSON


def past_of(query: Query, workspace: str, until_ms: int) -> Iterator[Event]:
    """What ClickHouse knows, up to a moment; what the customer stage refused is not among it.

    Raises:
        TidewireError: it cannot be asked, or there is no such workspace.
    """
    hours = query(hours_sql(workspace, until_ms))
    for first, last in ranges_of(hours):
        for row in query(events_sql(workspace, first, last)):
            yield event_of_row(workspace, row)


def hours_sql(workspace: str, until_ms: int) -> str:
    """A query for how many events there are in each hour: columns `hour`, since 1970, and `events`.

    Raises:
        TidewireError: there is no such workspace.
    """
    if not WORKSPACE_PATTERN.match(workspace):
        raise TidewireError(f"{workspace!r} is no workspace")
    return _HOURS.format(workspace=workspace, moment=_MOMENT, hour=HOUR_MS, last=until_ms // HOUR_MS)


def events_sql(workspace: str, first: int, last: int) -> str:
    """A query for the events of some hours, as rows for `event_of_row`."""
    return _EVENTS.format(workspace=workspace, moment=_MOMENT, hour=HOUR_MS, first=first, last=last)


def ranges_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Hours that are read together, the first and the last of each."""
    first: int | None = None
    last = events = 0
    for row in rows:
        hour, count = int(row["hour"]), int(row["events"])
        if first is not None and events + count > ROWS_AT_ONCE:
            yield first, last
            first, events = None, 0
        if first is None:
            first = hour
        last, events = hour, events + count
    if first is not None:
        yield first, last


def event_of_row(workspace: str, row: Mapping[str, Any]) -> Event:
    kind = row["type"]
    return Event(
        message_id=row["message_id"], type=kind, workspace=workspace, source=row["source"],
        timestamp=from_ms(int(row["at_ms"])), received_at=from_ms(int(row["received_ms"])), user_id=row["user_id"],
        anonymous_id=row["anonymous_id"], group_id=row["group_id"], previous_id=row["previous_id"],
        event=row["event"] if kind == "track" else "", name=row["name"], category=row["category"],
        raw_context=_raw(row["context"]), raw_properties=_dotted(row["properties"]), raw_traits=_raw(row["traits"]),
        flags=tuple(row["flags"]), attempt=int(row["attempt"]),
    )  # fmt: skip


def _raw(text: str) -> Raw:
    return Raw(text.encode() or b"{}")


def _dotted(text: str) -> Raw:
    """A dot in a name of a property is a dot again."""
    raw = text.encode() or b"{}"
    return Raw(msgspec.json.encode(_undone(msgspec.json.decode(raw)))) if _DOT in raw else Raw(raw)


def _undone(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.replace("%2E", "."): _undone(each) for name, each in value.items()}
    return [_undone(each) for each in value] if isinstance(value, list) else value


def past_of_file(file: Path, workspace: str, *, now: datetime | None = None) -> list[Event]:
    """The events of a file as `tidewire send` takes it, each as the collector would take it; all of them came when they
    happened.

    Raises:
        TidewireError: the file cannot be read, or a line is no call; with its number.
    """
    reader, events = CallReader(), []
    came = Arrival(workspace=workspace, source=SOURCE_OF_FILE, received_at=now or datetime.now(UTC))
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise TidewireError(f"{file} cannot be read: {error.strerror}.") from None
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            for call in reader.calls_of(Line(number, text)):
                event = read_event(call.body, "", came)
                check_event(event)
                events.append(msgspec.structs.replace(event, received_at=event.timestamp))
        except Refused as refused:
            raise TidewireError(f"{file}, line {number}: {refused}") from None
    return sorted(events, key=moment_of)
