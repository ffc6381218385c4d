"""Tables as CSV that a spreadsheet opens as text, never as a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from starlette.responses import Response, StreamingResponse

# Behind blanks, control signs, quotes and separators too: spreadsheets skip them or split at them.
_FORMULA = re.compile(r"[\s\x00-\x20\x7f-\x9f\"';,\u200b-\u200f\ufeff]*[=+\-@\t\r\n\0]")


def safe_cell(value: object) -> str:
    """The value as text, with `'` before what a spreadsheet would take for a formula (OWASP ASVS 1.2.10).

    Numbers of ours stay numbers; text is what came from outside.

    >>> safe_cell("=HYPERLINK(1)"), safe_cell(-3), safe_cell(" @x")
    ("'=HYPERLINK(1)", '-3', "' @x")
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    text = str(value)
    mark = "'" if _FORMULA.match(text) else ""
    return mark + text.replace("\0", "")


def csv_response(name: str, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> Response:
    """A download `name`.csv in UTF-8, with a mark of it so that Excel reads Chinese right."""
    text = _MARK + _line(columns) + "".join(_line([row.get(column) for column in columns]) for row in rows)
    return Response(text, media_type=_TYPE, headers=_download(name))


def csv_stream(name: str, columns: Sequence[str], rows: AsyncIterable[Mapping[str, object]]) -> Response:
    """The same, sent while it is read: for what may have any number of rows."""

    async def lines() -> AsyncIterator[str]:
        yield _MARK + _line(columns)
        async for row in rows:
            yield _line([row.get(column) for column in columns])

    return StreamingResponse(lines(), media_type=_TYPE, headers=_download(name))


_MARK = "\ufeff"
_TYPE = "text/csv; charset=utf-8"


def _download(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}.csv"'}


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n").writerow([safe_cell(cell) for cell in cells])
    return text.getvalue()
