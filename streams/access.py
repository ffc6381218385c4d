"""How a command reaches a Tidewire: the process that owns the data folder, or the folder itself.

`tidewire up` writes `run.json` into its data folder: process id, address and token, readable by the owner alone. While
that process lives it alone may open the folder, so commands ask it.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

from config.secret_file import make_secret_file
from config.settings import Settings
from schemas.errors import TidewireError, Unreachable, shown

RUN_FILE = "run.json"
KEY_FILE = "write_key"
LONGEST_ANSWER_S = 300.0


class RunFile(msgspec.Struct, frozen=True):
    """What `tidewire up` leaves in its data folder while it runs."""

    pid: int
    url: str
    token: str


class ApiRefused(TidewireError):
    """The running process answered that it will not do this."""

    def __init__(self, status: int, what: str) -> None:
        self.status = status
        super().__init__(what)


class Answer(NamedTuple):
    status: int
    body: bytes


class Api:
    """The API of a running Tidewire. It is asked on the loopback address, and never through a proxy."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._address = urlsplit(url)
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def get(self, path: str, **query: str | int | None) -> Any:
        wanted = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", f"{path}?{urlencode(wanted)}" if wanted else path, None)

    def post(self, path: str, body: Any = None) -> Any:
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        """The decoded answer.

        Raises:
            Unreachable: no answer, or it is too busy.
            ApiRefused: an answer that says no; the text is the answer's own reason.
        """
        answer = self._exchange(method, path, body)
        try:
            value = json.loads(answer.body, parse_float=Decimal) if answer.body else None  # digits as they are
        except ValueError:
            value = None
        if answer.status in (429, 503):
            raise Unreachable(f"{self.url} is busy (status {answer.status}). Try again in a moment.")
        if answer.status != 200:
            raise ApiRefused(answer.status, _reason(value) or f"{self.url}{path} answered with status {answer.status}.")
        return value

    def _exchange(self, method: str, path: str, body: Any) -> Answer:
        headers = dict(self._headers)
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(
            self._address.hostname or "127.0.0.1", self._address.port, timeout=LONGEST_ANSWER_S
        )
        try:
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url} does not answer: {error or type(error).__name__}.") from None
        finally:
            connection.close()


def _reason(value: Any) -> str:
    """The reason in an error's body, whichever of the usual names it stands under."""
    if isinstance(value, dict):
        for name in ("error", "detail", "message", "reason"):
            if isinstance(value.get(name), str):
                return str(value[name])
    return ""


def find_running(data: Path) -> RunFile | None:
    """The process that owns the data folder; None where none does, or its file was left by one that was killed."""
    file = data / RUN_FILE
    try:
        found = msgspec.json.decode(file.read_bytes(), type=RunFile)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise TidewireError(f"{file} belongs to another user; only who started `tidewire up` may ask it.") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise TidewireError(
            f"{file} cannot be read: {shown(str(error))}. Remove it if no `tidewire up` runs."
        ) from None
    return found if _is_alive(found) else None


def _is_alive(found: RunFile) -> bool:
    try:
        os.kill(found.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        # The number may have gone to another process since: only one that answers at the address is ours.
        Api(found.url, found.token)._exchange("GET", "/healthz", None)
    except Unreachable:
        return False
    return True


def write_key_of(settings: Settings) -> str:
    """The write key to send with: the first plain one of the settings, else the data folder's own."""
    for key in settings.write_keys.split(","):
        if key.strip():
            return key.strip()
    return folder_key(settings.data)


def with_folder_key(settings: Settings) -> Settings:
    """The settings with the data folder's own write key among the plain ones."""
    keys, own = [key.strip() for key in settings.write_keys.split(",") if key.strip()], folder_key(settings.data)
    return settings.model_copy(update={"write_keys": ",".join(keys if own in keys else [*keys, own])})


def folder_key(data: Path) -> str:
    """The private write key of a data folder, made when first asked for and readable by the owner alone.

    Raises:
        TidewireError: the folder cannot be written, or the file holds no key.
    """
    file = data / KEY_FILE
    if not file.exists():
        make_secret_file(file, f"tw_{secrets.token_urlsafe(24)}\n")
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TidewireError(f"{file} cannot be read: {error}.") from None
    if not key:
        raise TidewireError(f"{file} is empty. Remove it; a new key is then made.")
    return key
