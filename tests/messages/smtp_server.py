"""An SMTP server that does what it is told, good or bad, on a real socket; and the certificates that TLS asks for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.kafka_broker import free_ports

DROP, HANG, SLOWLY = b"(drop)", b"(hang)", b"(slowly)"
ANSWERS = {
    "": b"220 here\r\n", "EHLO": b"250-here\r\n250 SIZE 10000000\r\n", "STARTTLS": b"220 go on\r\n",
    "AUTH": b"235 2.7.0 welcome\r\n", "RSET": b"250 ok\r\n", "MAIL": b"250 ok\r\n", "RCPT": b"250 ok\r\n",
    "DATA": b"354 go on\r\n", ".": b"250 2.0.0 Ok: queued as 4XyzAB\r\n", "QUIT": b"221 bye\r\n",
}  # fmt: skip


class ScriptedServer:
    """Answers each command by what `says` holds for it: octets, or DROP, HANG or SLOWLY (octet by octet, without end).

    Attributes:
        says: by the first word of a command; "" is the greeting, "." the end of a mail, "text" what is done when the
            first line of a mail came. A list is used up, one for each time.
        commands: all lines that came in, but those of mails; of all connections.
        mails: those that had their end, as they came.
        connections: how many there were; `open`: are now.
        late_s: how long it thinks first, by what `says` has.
        port: chosen when it first runs.
        is_hanging: a client waits for an answer that does not come.
    """

    def __init__(self, says: dict[str, bytes | list[bytes]], context: ssl.SSLContext | None) -> None:
        self.says: dict[str, bytes | list[bytes]] = {**ANSWERS, **says}
        self.commands: list[str] = []
        self.mails: list[bytes] = []
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.late_s: dict[str, float] = {}
        self.is_hanging = False
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        return len(self.writers)

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
        self.port = self.port or free_ports(1)[0]  # once more where it was, if it runs again
        listening = socket.create_server(("127.0.0.1", self.port))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)  # so that it can be too slow for a large mail
        server = await asyncio.start_server(self._serve, sock=listening, ssl=tls)
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.writers.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, _Dropped):
                await self._talk(reader, writer)
        except asyncio.CancelledError:
            pass  # the server ends
        finally:
            self.writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._say("", reader, writer)
        while line := await reader.readline():
            self.commands.append(line.decode().rstrip("\r\n"))
            command = self.commands[-1].partition(" ")[0].upper()
            said = await self._say(command, reader, writer)
            if command == "QUIT":
                return
            if command == "STARTTLS" and self._context is not None:
                await writer.start_tls(self._context)
            if command == "DATA" and said.startswith(b"354"):
                await self._take_mail(reader, writer)

    async def _take_mail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [await reader.readline()]
        if "text" in self.says:
            await self._say("text", reader, writer)
        while lines[-1] != b".\r\n":
            lines.append(await reader.readline())
            if not lines[-1]:
                return
        self.mails.append(b"".join(line.removeprefix(b".") for line in lines[:-1]))
        await self._say(".", reader, writer)

    async def _say(self, command: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Answer a command. Returns the answer."""
        says = self.says.get(command, b"502 5.5.1 no such command\r\n")
        if isinstance(says, list):
            says = says.pop(0) if len(says) > 1 else says[0]
        await asyncio.sleep(self.late_s.get(command, 0))
        if says == DROP:
            raise _Dropped
        if says == HANG:
            self.is_hanging = True
            await reader.read()  # until the client goes
            raise _Dropped
        while says == SLOWLY:
            writer.write(b"2")
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(says)
        await writer.drain()
        return says


class _Dropped(Exception):
    pass


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server at 127.0.0.1, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file, key_file = folder / "server.pem", folder / "server.key"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                           serialization.NoEncryption()))  # fmt: skip
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file, key_file)
    return server, ssl.create_default_context(cafile=str(file))
