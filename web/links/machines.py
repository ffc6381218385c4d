"""Which clicks and openings no person made, as far as one process can tell. `schemas.messages.MACHINES` has the marks.

What is marked is an event all the same; it is only no deed of hers.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

SWIFT_S = 1.0  # two links of a message within it: nobody reads so fast
MOST_READERS = 10_000  # messages, each with an address, that are remembered; those seen last

_AHEAD = ("purpose", "sec-purpose", "x-purpose", "x-moz")
# Gmail and Yahoo name themselves; Apple's Mail Privacy Protection says these words and no more.
_PROXY = re.compile(r"GoogleImageProxy|YahooMailProxy|\AMozilla/5\.0\Z")
_AGENT = re.compile(  # Cubot makes telephones
    r"(?<!cu)bot\b|crawl|spider|scan|preview|monitor|headless|facebookexternalhit|slurp|barracuda|proofpoint|mimecast|safelinks"
    r"|curl/|wget/|python|okhttp|go-http-client|java/|apache-httpclient|libwww|axios|node-fetch|undici|httpx|ruby",
    re.IGNORECASE,
)


class _Reader(NamedTuple):
    """What an address last did with a message; `mark`: it is a machine."""

    link: int
    at_s: float
    mark: str


class Machines:
    """Marks requests; remembers who followed which link, while the process lives."""

    def __init__(self) -> None:
        self._readers: OrderedDict[tuple[str, str], _Reader] = OrderedDict()

    def of_opening(self, method: str, headers: Mapping[str, str]) -> str:
        """The mark of a request for the picture; empty where it may be a person's."""
        if method == "HEAD":
            return "head"
        agent = headers.get("user-agent", "").strip()
        if any(re.search("prefetch|preview", headers.get(name, ""), re.IGNORECASE) for name in _AHEAD):
            return "prefetch"
        if _PROXY.search(agent):
            return "proxy"
        return "agent" if not agent or _AGENT.search(agent) else ""

    def of_click(self, method: str, headers: Mapping[str, str], message: str, address: str, link: int,
                 now_s: float) -> str:  # fmt: skip
        """The mark of a request for link `link` of a message; link 0 is the one that no person sees.

        Args:
            now_s: of a clock that never jumps.
        """
        reader, before = (message, address), self._readers.get((message, address))
        mark = before.mark if before is not None else ""
        if link == 0:
            mark = "trap"
        elif not mark and before is not None and before.link != link and now_s - before.at_s < SWIFT_S:
            mark = "swift"
        self._readers[reader] = _Reader(link, now_s, mark)
        self._readers.move_to_end(reader)
        if len(self._readers) > MOST_READERS:
            self._readers.popitem(last=False)
        return mark or self.of_opening(method, headers)
