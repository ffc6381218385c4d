"""Files of events: JSON lines, each one Segment call or one batch body as an SDK posts it."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
from msgspec import Raw

from schemas.errors import Refused, TidewireError
from schemas.event import LARGEST_EVENT_BYTES

CHUNK_BYTES = 256 * 1024
LARGEST_LINE_BYTES = 16 * 1024 * 1024

Body = dict[str, Raw]
_decode_any = msgspec.json.Decoder().decode
_decode_body = msgspec.json.Decoder(Body).decode
_decode_batch = msgspec.json.Decoder(list[Body]).decode
_decode_text = msgspec.json.Decoder(str | int | None).decode
_encode = msgspec.json.Encoder().encode
_BOM = b"\xef\xbb\xbf"
# They say when and by whom a request was sent; these calls leave now, with a key of their own. A `sentAt` of long ago
# would pass for a clock that is wrong by as much, and move the event to today.
_OF_THE_REQUEST = ("sentAt", "writeKey")


class Call(NamedTuple):
    """One call as JSON with a messageId, and whose it is."""

    person: str
    body: bytes


class Line(NamedTuple):
    number: int
    text: bytes


def check_file(file: Path) -> None:
    """Whether the file can be read, before anything is started for it.

    Raises:
        TidewireError: it cannot.
    """
    source = _open(file)
    if source is not sys.stdin.buffer:
        source.close()


async def read_lines(file: Path) -> AsyncIterator[Line]:
    """The lines of a file, or of standard input for `-`, as they come; empty ones are left out.

    Raises:
        TidewireError: the file cannot be read, or a line is longer than 16 MB.
    """
    source = await asyncio.to_thread(_open, file)
    try:
        number, rest = 0, b""
        while chunk := await asyncio.to_thread(_read, source, file):
            *whole, rest = (rest + chunk).split(b"\n")
            for text in whole:
                number += 1
                if text.strip():
                    yield Line(number, text)
            if len(rest) > LARGEST_LINE_BYTES:
                raise TidewireError(f"{file}, line {number + 1} is longer than {LARGEST_LINE_BYTES} bytes; "
                                    "write one call a line.")  # fmt: skip
        if rest.strip():
            yield Line(number + 1, rest)
    finally:
        if source is not sys.stdin.buffer:
            source.close()


def _open(file: Path) -> BinaryIO:
    if str(file) == "-":
        return sys.stdin.buffer
    if file.suffix.lower() in (".csv", ".gz", ".zip", ".parquet"):
        raise TidewireError(f"{file} is not a file of JSON lines, which is what `send` reads: one call a line.")
    try:
        return file.open("rb")
    except OSError as error:
        raise TidewireError(f"{file} cannot be read: {error.strerror}.") from None


def _read(source: BinaryIO, file: Path) -> bytes:
    try:
        return source.read1(CHUNK_BYTES)  # type: ignore[attr-defined,no-any-return]
    except OSError as error:
        raise TidewireError(f"{file} cannot be read: {error.strerror}.") from None


class CallReader:
    """Makes calls of lines. The same lines, in whatever order and however often read anew, give the same messageIds."""

    def __init__(self) -> None:
        self._met: Counter[bytes] = Counter()

    def calls_of(self, line: Line) -> list[Call]:
        """The calls of one line.

        Raises:
            Refused: it is no call and no batch. What is wrong within a call the collector says, in `rejected`.
        """
        text = line.text.removeprefix(_BOM) if line.number == 1 else line.text
        try:
            _decode_any(text)  # whole: what stays raw below is not looked into, and would sink its whole batch
            body = _decode_body(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("a line must be one JSON object", value=str(error)) from None
        return [self._call(each) for each in _each(body)]

    def _call(self, body: Body) -> Call:
        for name in _OF_THE_REQUEST:
            body.pop(name, None)
        if not _text(body, "messageId"):
            body["messageId"] = Raw(b'"' + self._made_id(_encode(body)).encode() + b'"')
        encoded = _encode(body)
        if len(encoded) > LARGEST_EVENT_BYTES:
            raise Refused(f"a call may have at most {LARGEST_EVENT_BYTES} bytes", value=f"{len(encoded)} bytes")
        return Call(_text(body, "userId") or _text(body, "anonymousId"), encoded)

    def _made_id(self, content: bytes) -> str:
        """An id of the content; equal contents are told apart by how many came before."""
        digest = blake2b(content, digest_size=12).digest()
        self._met[digest] += 1
        return f"line-{digest.hex()}-{self._met[digest]}"


def _each(body: Body) -> Iterator[Body]:
    """The calls of a batch body, each with what the batch says for all; or the call itself."""
    if "batch" not in body:
        yield body
        return
    try:
        batch = _decode_batch(body["batch"])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused("batch must be a list of calls", field="batch", value=str(error)) from None
    for call in batch:
        for name in ("context", "integrations"):
            if name in body:
                call[name] = _merged(body[name], call.get(name))
        yield call


def _merged(of_batch: Raw, of_call: Raw | None) -> Raw:
    if of_call is None:
        return of_batch
    try:
        return Raw(_encode({**_decode_body(of_batch), **_decode_body(of_call)}))
    except msgspec.DecodeError:  # one of them is no object: the collector says so
        return of_call


def _text(body: Body, name: str) -> str:
    try:
        value = _decode_text(body[name])
    except (KeyError, msgspec.DecodeError):
        return ""
    return "" if value is None else str(value)
