"""The links of one message: those to where it leads, the picture that tells of its opening, and the way out."""

from __future__ import annotations

import re
from html import unescape
from html.entities import html5
from urllib.parse import quote, urlsplit

from sinks.messages.links import CLICK, OPEN, PREFERENCES, UNSUBSCRIBE, Click, Mailed, Tokens
from sinks.messages.tags import tags_of

LONGEST_ADDRESS = 2_000  # characters that every mail program and server takes; a link that would be longer stays
UNTRACKED = "data-untracked"  # attribute of a link that is to stay as it is

_ENDS = frozenset({"/body", "/html"})
_TAGS = _ENDS | {"a", "area"}
_REFERENCE = re.compile(r"&(#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*)([;=]?)")
_WEB = re.compile(r"https?://[^\x00-\x20\x7f\\]+", re.IGNORECASE)
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_PIXEL = '<img src="{}" width="1" height="1" alt="" border="0">'
_TRAP = '<a href="{}" style="display:none" aria-hidden="true" tabindex="-1"></a>'


class Links:
    """Makes the links of messages.

    Args:
        public_url: the setting; a scheme and a host.
        tokens: with at least one key.
    """

    def __init__(self, public_url: str, tokens: Tokens) -> None:
        self._public_url = public_url
        self._tokens = tokens

    def unsubscribe_url(self, mailed: Mailed) -> str:
        """Where one POST takes her off the topic on the channel; empty where the message has no topic."""
        return self._address(UNSUBSCRIBE.path(self._tokens.sign(UNSUBSCRIBE, mailed))) if mailed.topic else ""

    def preferences_url(self, mailed: Mailed) -> str:
        """Where she says what she wants to get."""
        return self._address(PREFERENCES.path(self._tokens.sign(PREFERENCES, mailed)))

    def tracked(self, html: str, mailed: Mailed, *, has_trap: bool = False) -> str:
        """The HTML with its links leading through the collector, and with the picture at its end.

        Changed are the `href` of `a` and `area` that begin with http or https; all other bytes stay. Left as they are:
        links with the attribute `data-untracked`, links to the collector itself, and those that would be longer than
        `LONGEST_ADDRESS`.

        Args:
            has_trap: add a link that no person sees: whoever follows it is a machine.
        """
        if not html:
            return ""
        pieces, done, number = [], 0, 0
        links, end_of_body = _places(html)
        for begin, end in links:
            address = self._click(mailed, number + 1, _target(html[begin:end]))
            if address:
                number += 1
                pieces += [html[done:begin], address]
                done = end
        pieces += [html[done:end_of_body], self._at_the_end(mailed, has_trap), html[end_of_body:]]
        return "".join(pieces)

    def _click(self, mailed: Mailed, number: int, target: str) -> str:
        if not target or target.startswith(f"{self._public_url}/l/"):
            return ""
        said = Click(mailed.message, mailed.person, mailed.template, mailed.topic, mailed.channel, number, target)
        return self._short(CLICK.path(self._tokens.sign(CLICK, said)))

    def _at_the_end(self, mailed: Mailed, has_trap: bool) -> str:
        trap = Click(mailed.message, mailed.person, mailed.template, mailed.topic, mailed.channel, 0, "")
        hidden = self._short(CLICK.path(self._tokens.sign(CLICK, trap))) if has_trap else ""
        picture = self._short(OPEN.path(self._tokens.sign(OPEN, mailed)) + ".gif")
        return (hidden and _TRAP.format(hidden)) + (picture and _PIXEL.format(picture))

    def _address(self, path: str) -> str:
        return self._public_url + path

    def _short(self, path: str) -> str:
        address = self._address(path)
        return address if len(address) <= LONGEST_ADDRESS else ""


def _places(html: str) -> tuple[list[tuple[int, int]], int]:
    """Begin and end of the values of `href` that may be changed, and where the body ends."""
    links: list[tuple[int, int]] = []
    end = len(html)
    for tag in tags_of(html, _TAGS):
        if tag.name in _ENDS:
            end = tag.begin if end == len(html) or tag.name == "/body" else end
            continue
        attributes = {each.name: each for each in reversed(tag.attributes)}  # of several of a name the first counts
        if "href" in attributes and UNTRACKED not in attributes:
            links.append((attributes["href"].begin, attributes["href"].end))
        end = len(html)  # what comes after the end of a body belongs to it all the same
    return links, end


def _target(value: str) -> str:
    """The address that the value of an `href` means, in ASCII; empty where it is none that is followed with tracking.

    >>> _target(" https://shop.test/?a=1&amp;b=2&copy=3 "), _target("https://shop.test/数"), _target("mailto:a@b.test")
    ('https://shop.test/?a=1&b=2&copy=3', 'https://shop.test/%E6%95%B0', '')
    """
    address = _REFERENCE.sub(_meant, value).strip(" \t\r\n\f")
    if not _WEB.fullmatch(address):
        return ""
    try:
        place = urlsplit(address)
        is_plain = bool(place.hostname) and place.netloc.isascii() and "@" not in place.netloc
        return quote(address, safe=_ASCII) if is_plain else ""
    except ValueError:  # an address or port that is none, or half a character
        return ""


def _meant(found: re.Match[str]) -> str:
    """A character reference as attributes have them: `&copy=` in an address is a parameter, and no sign.

    Source: WHATWG HTML, named character reference state.
    """
    is_meant = found[1].startswith("#") or (found[2] != "=" and found[1] + found[2] in html5)
    return unescape(found[0]) if is_meant else found[0]
