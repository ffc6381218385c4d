"""Where the tags of an HTML page stand, as browsers see it, however broken the page is.

Each sign is looked at a few times, whatever there is: Python's `html.parser` takes a minute for 100 kB of tags that do
not end, and does not know comments and texts of `textarea` as browsers do.
Source: WHATWG HTML, tokenization.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_VALUE = r"""(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|[^\s>"'][^\s>]*+)"""
_ATTRIBUTE = rf"[\s/]*+(?P<name>[^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?P<value>{_VALUE})?+)?+"
_SCANNED = re.sub(r"\?P<\w+>", "?:", _ATTRIBUTE)
_MARKUP = re.compile(
    r"<!--(?:-?>|.*?(?:--!?>|\Z))"  # a comment
    r"|<(?:[!?]|/[^a-zA-Z])[^>]*+(?:>|\Z)"  # what browsers take for one
    rf"|<(?P<slash>/?)(?P<tag>[a-zA-Z][^\s/>]*+)(?P<rest>(?:{_SCANNED})*+[\s/]*+)(?P<end>>|\Z)",
    re.DOTALL,
)
_EACH = re.compile(_ATTRIBUTE)
_OF_TEXT = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"})  # no tags within


class Attribute(NamedTuple):
    """One attribute; `begin` and `end` of its value, without its quotes."""

    name: str
    begin: int
    end: int


class Tag(NamedTuple):
    """A tag that begins at `begin`; `name` in lower case, with a `/` before it where the tag ends an element."""

    name: str
    begin: int
    attributes: tuple[Attribute, ...]


def tags_of(html: str, names: frozenset[str]) -> Iterator[Tag]:
    """The tags of these names, in their order."""
    at = 0
    while found := _MARKUP.search(html, at):
        at = found.end()
        if not found["tag"] or not found["end"]:
            continue
        name = found["slash"] + found["tag"].lower()
        if name in names:
            yield Tag(name, found.start(), tuple(_attributes(html, *found.span("rest"))))
        if name in _OF_TEXT:
            ending = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(html, at)
            at = ending.start() if ending else len(html)


def _attributes(html: str, begin: int, end: int) -> Iterator[Attribute]:
    while each := _EACH.match(html, begin, end):
        begin = each.end()
        start, stop = each.span("value")
        if start >= 0 and html[start] in "\"'":
            start, stop = start + 1, stop - 1
        yield Attribute(each["name"].lower(), max(start, 0), max(stop, 0))
