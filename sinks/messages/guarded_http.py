"""One bounded POST to an address that somebody wrote into a file, and never to what is inside.

What an address leads to is decided by DNS at the moment of the call, by whoever owns the name. So nothing is believed
of the name: all that it resolves to must be public, and one address that is not refuses them all. The connection goes
to just these addresses; there is no second question that DNS could answer otherwise. No socket is made for any other,
however aiohttp came to it. Redirects are not followed, proxies and cookies are not known, and what is read is bounded
in time and size.

    NoAnswer         there is none: was the request on its way already?
    └── NotAllowed   the address is not one that may be asked; nothing was connected

Source: OWASP, Server-Side Request Forgery Prevention; the IANA special-purpose address registries.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import BaseModel, ConfigDict, Field, model_validator
from yarl import URL

from schemas.errors import TidewireError, shown

LONGEST_URL = 2_048  # characters
PORTS = (443, 8443)
TIMEOUT_S = 5.0  # for all of it: resolving, connecting, sending, reading
LARGEST_ANSWER = 64 * 1024  # bytes
LONGEST_HEADER = 8_190  # bytes, of one line
MOST_HEADERS = 100

Address = IPv4Address | IPv6Address
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\\]")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\Z", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that is given out of IPv6
_NAT64 = IPv6Network("64:ff9b::/96")
_INWARD = (
    IPv4Network("192.0.0.0/24"),  # of protocols; Oracle's clouds have their metadata there
    IPv4Network("168.63.129.16/32"),  # looks public, and is the host of a machine of Azure
)


class NoAnswer(TidewireError):
    """There is no answer.

    Attributes:
        was_sent: the connection stood, so the other side may have read the request, in part or as a whole.
        is_timeout: the time was over; else the other side, or what is between, broke off.
    """

    def __init__(self, why: str, *, was_sent: bool = False, is_timeout: bool = False) -> None:
        self.was_sent, self.is_timeout = was_sent, is_timeout
        super().__init__(why)


class NotAllowed(NoAnswer):
    """The address must not be asked. Nothing was connected."""


class Answer(NamedTuple):
    """What the other side said. `body` are the first LARGEST_ANSWER bytes of it, or what came before it broke off."""

    status: int
    headers: Mapping[str, str]  # of any case
    body: bytes


class HttpSettings(BaseModel):
    """Where a channel posts to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="Address, https; port 443 or 8443.")
    allow: tuple[str, ...] = Field(
        (), max_length=20,
        description="Receivers within, as `127.0.0.1:9000`: address and port, compared after the name was resolved. "
                    "They may have another port, and plain http.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _may_be_asked(self) -> HttpSettings:
        allowed = read_allow(self.allow)
        url = parse_url(self.url)
        port = url.port or 0
        if port not in PORTS and port not in {each for _, each in allowed}:
            raise ValueError(f"url: port {port} may not be asked, only {PORTS[0]} and {PORTS[1]}; name a receiver of "
                             f"your own in `allow`, as 127.0.0.1:{port}")  # fmt: skip
        if address := _literal(url):
            try:
                _check(address, port, allowed)
            except NotAllowed as not_allowed:
                raise ValueError(f"url: {not_allowed}") from None
        return self


def parse_url(url: str) -> URL:
    """The address, if it has a form that may be asked. What its name leads to is looked at when it is connected.

    Raises:
        ValueError: it has not; why, as a sentence with the mend.
    """
    if len(url) > LONGEST_URL:
        raise ValueError(f"the address has {len(url):,} characters; at most {LONGEST_URL:,}")
    if found := _NOT_IN_URL.search(url):
        raise ValueError(f"the address holds {found[0]!r}; write it percent-encoded")
    try:
        parsed = URL(url)
        host, port = parsed.raw_host or "", parsed.port
    except ValueError as error:
        raise ValueError(f"{shown(url)} is no address: {error}") from None
    if parsed.scheme not in ("https", "http") or not host:
        raise ValueError(f"{shown(url)} is no address of the web; write https://host/path")
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise ValueError("the address holds a user or a password before an @; take them out")
    if parsed.scheme == "http" and port in PORTS:
        raise ValueError(f"port {port} is for https; write https://")
    if _literal(parsed) is None:
        if not _NAME.match(host):
            raise ValueError(f"{shown(host)} cannot be the name of a host")
        if _NUMBER.match(host.rstrip(".").rpartition(".")[2]):
            raise ValueError(f"{host} is an IP address that programs read differently; write it as four numbers")
    return parsed


def plain(said: str) -> str:
    """What the other side said, as one line: at most 200 characters, and only those that are printed."""
    return shown(" ".join("".join(each if each.isprintable() else " " for each in said[:1_000]).split()))


def read_allow(allow: Collection[str]) -> frozenset[tuple[Address, int]]:
    """Addresses with their ports, of texts like `127.0.0.1:9000` or `[::1]:9000`.

    Raises:
        ValueError: one is no such text.
    """
    found = set()
    for each in allow:
        host, _, port = each.rpartition(":")
        try:
            found.add((ip_address(host.removeprefix("[").removesuffix("]")), int(port)))
        except ValueError:
            raise ValueError(f"allow: {shown(each)} is no IP address with a port; write 127.0.0.1:9000") from None
    return frozenset(found)


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, and so is each that is wrapped into it.

    >>> is_public(ip_address("8.8.8.8")), is_public(ip_address("::ffff:10.0.0.1")), is_public(ip_address("100.64.0.1"))
    (True, False, False)
    """
    if isinstance(address, IPv4Address):
        is_special = address.is_multicast or address.is_reserved or any(address in each for each in _INWARD)
        return address.is_global and not is_special
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    # Mapped ones are outside of 2000::/3, Teredo is not global; what 6to4 wraps must be looked at.
    return address in _GLOBAL_UNICAST and address.is_global and (
        address.sixtofour is None or is_public(address.sixtofour)
    )  # fmt: skip


class GuardedHttp:
    """Posts to where it may. One connection for each request: on one that is used again nobody can tell whether a
    request that finds it closed was read.

    Args:
        allow: receivers within that may be asked, see HttpSettings.
        resolver: asks DNS; what it says is checked.
    """

    def __init__(self, allow: Collection[str] = (), *, resolver: AbstractResolver | None = None,
                 timeout_s: float = TIMEOUT_S) -> None:  # fmt: skip
        self._allowed = read_allow(allow)
        self._resolver = resolver
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, query: str = "") -> Answer:
        """One POST; redirects are answers.

        Args:
            query: percent-encoded, sent as it stands.

        Raises:
            NotAllowed: the address must not be asked.
            NoAnswer: there is none.
        """
        try:
            target = parse_url(url)
        except ValueError as error:
            raise NotAllowed(str(error)) from None
        if query:
            target = URL(f"{target}?{query}", encoded=True)
        if self._session is None:
            self._session = self._open()
        progress = SimpleNamespace(is_connected=False)
        answer, came = None, bytearray()
        try:
            async with asyncio.timeout(self._timeout_s), self._session.post(
                target, data=body or None, headers=headers, allow_redirects=False, trace_request_ctx=progress,
            ) as answer:  # fmt: skip
                async for piece in answer.content.iter_any():
                    came += piece
                    if len(came) >= LARGEST_ANSWER:
                        answer.close()
                        break
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            if answer is None:
                raise self._silence(target, progress.is_connected, error) from None
        return Answer(answer.status, answer.headers, bytes(came[:LARGEST_ANSWER]))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        # The first request opens it: a session belongs to a running loop.
        connector = aiohttp.TCPConnector(
            resolver=_Checked(self._resolver or aiohttp.ThreadedResolver(), self._allowed), use_dns_cache=False,
            socket_factory=self._socket, force_close=True, limit=0,
        )  # fmt: skip
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_end.append(_connected)
        return aiohttp.ClientSession(
            connector=connector, trace_configs=[tracing], cookie_jar=aiohttp.DummyCookieJar(), trust_env=False,
            headers={"User-Agent": "Tidewire", "Accept-Encoding": "identity"}, auto_decompress=False,
            skip_auto_headers=("Content-Type",), timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=LONGEST_HEADER, max_field_size=LONGEST_HEADER, max_headers=MOST_HEADERS,
        )  # fmt: skip

    def _socket(self, info: Any) -> socket.socket:
        """The last word: addresses that are written out are not resolved, and come here alone."""
        family, kind, protocol, _, (host, port, *_) = info
        _check(ip_address(host), port, self._allowed)
        return socket.socket(family, kind, protocol)

    def _silence(self, target: URL, was_sent: bool, error: Exception) -> NoAnswer:
        host = f"{target.raw_host}:{target.port}"
        what = "did not answer" if was_sent else "could not be connected"
        if isinstance(error, TimeoutError):
            return NoAnswer(f"{host} {what} within {self._timeout_s:g} s", was_sent=was_sent, is_timeout=True)
        if isinstance(error, aiohttp.ClientResponseError):
            said = error.message  # its text names the whole address, in which there may be secrets
        else:
            said = str(getattr(error, "os_error", error)) or repr(error)
        return NoAnswer(f"{host} {what}: {plain(said)}", was_sent=was_sent)


class _Checked(AbstractResolver):
    """What DNS says of a name, if each of it may be asked."""

    def __init__(self, resolver: AbstractResolver, allowed: Collection[tuple[Address, int]]) -> None:
        self._resolver, self._allowed = resolver, allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        try:
            found = await self._resolver.resolve(host, port, family)
        except UnicodeError as error:  # such as a label of 64 characters
            raise OSError(f"{host} cannot be a name: {error}") from None
        if not found:
            raise OSError(f"{host} has no address")
        for each in found:
            _check(ip_address(each["host"]), port, self._allowed, of=host)
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _check(address: Address, port: int, allowed: Collection[tuple[Address, int]], of: str = "") -> None:
    if (address, port) in allowed or (port in PORTS and is_public(address)):
        return
    what = f"{address}, an address of {of}," if of else f"{address}"
    why = "is not public" if port in PORTS else f"may not be asked at port {port}, only at {PORTS[0]} and {PORTS[1]}"
    place = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    raise NotAllowed(f"{what} {why}; if it is a receiver of yours, write `allow: [\"{place}\"]`")


def _literal(url: URL) -> Address | None:
    """The IP address that stands in an address of the web; None where a name does."""
    try:
        return ip_address(url.raw_host or "")
    except ValueError:
        return None


async def _connected(_session: object, context: SimpleNamespace, _params: object) -> None:
    """After TLS, before the first byte of the request."""
    context.trace_request_ctx.is_connected = True
