"""Hosts of our own on one machine: network namespaces, each with a cable to a switch, and cables can be pulled.

    with Net() as net:
        host = net.host("worker")                  # ip netns exec …, with an address of its own
        program = (*host.run_in, *COMMAND)
        host.cut(); host.mend()                    # what is sent then is lost in silence, as with a real cable
        host.deafen(other.address)                 # it sends nothing more to that address

This machine itself is on the switch, too, at `net.address`. Needs root and iproute2. Linux only.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
from contextlib import ExitStack
from types import TracebackType

_numbers = itertools.count(1)


def ip(*words: str) -> str:
    """Run `ip`.

    Raises:
        AssertionError: it is missing, or refused: a row that needs it has not run then, and must not look as if.
    """
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise AssertionError("NOT RUN: network namespaces need the command `ip` (Debian: iproute2)") from None
    if done.returncode:
        raise AssertionError(f"NOT RUN: `ip {' '.join(words)}` said {done.stderr.strip()!r}; it needs root")
    return done.stdout


class Host:
    """A network namespace with an address on each net it is on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.run_in = ("ip", "netns", "exec", name)
        self.addresses: list[str] = []
        self._ports: list[str] = []

    @property
    def address(self) -> str:
        """Its address on the net that made it."""
        return self.addresses[0]

    def plugged(self, port: str, address: str) -> None:
        self._ports.append(port)
        self.addresses.append(address)

    def cut(self, cable: int = 0) -> None:
        """Pull the cable to the first net, or to another one. Nobody is told."""
        ip("link", "set", self._ports[cable], "down")

    def mend(self, cable: int = 0) -> None:
        ip("link", "set", self._ports[cable], "up")

    def deafen(self, *addresses: str) -> None:
        """Nothing leaves it for these addresses any more; what they send still arrives."""
        for address in addresses:
            ip("-netns", self.name, "route", "add", "blackhole", f"{address}/32")

    def undeafen(self, *addresses: str) -> None:
        for address in addresses:
            ip("-netns", self.name, "route", "del", "blackhole", f"{address}/32")


class Net:
    """A switch with this machine on it, as a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self._tag = f"tw{os.getpid() % 100_000}x{next(_numbers)}"
        self._subnet = f"10.{random.randrange(200, 250)}.{random.randrange(1, 250)}"
        self._count = 0
        self._stack = ExitStack()
        self.address = f"{self._subnet}.1"

    def __enter__(self) -> Net:
        try:
            ip("link", "add", self._tag, "type", "bridge")
            self._stack.callback(ip, "link", "del", self._tag)
            ip("addr", "add", f"{self.address}/24", "dev", self._tag)
            ip("link", "set", self._tag, "up")
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def host(self, name: str) -> Host:
        """A new host on this net. It is gone with the net; what runs in it is to be ended before."""
        host = Host(f"{self._tag}-{name}")
        ip("netns", "add", host.name)
        self._stack.callback(ip, "netns", "del", host.name)
        ip("-netns", host.name, "link", "set", "lo", "up")
        self.plug(host)
        return host

    def plug(self, host: Host) -> str:
        """Put a host on this net as well; its address here."""
        self._count += 1
        port, inside = f"{self._tag}p{self._count}", f"eth{len(host.addresses)}"
        address = f"{self._subnet}.{9 + self._count}"
        ip("link", "add", port, "type", "veth", "peer", "name", inside, "netns", host.name)
        self._stack.callback(ip, "link", "del", port)
        ip("link", "set", port, "master", self._tag)
        ip("link", "set", port, "up")
        ip("-netns", host.name, "addr", "add", f"{address}/24", "dev", inside)
        ip("-netns", host.name, "link", "set", inside, "up")
        host.plugged(port, address)
        return address
