"""SMS by Twilio, in free text. See docs/sms.md.

Source: Twilio, Messages resource (2010-04-01), and its dictionary of errors.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import urlencode

import msgspec
from pydantic import Field

from schemas.errors import ConfigError
from sinks.messages.answers import of_silence, of_status
from sinks.messages.channel import Accepted, Declined, Later, Message, Outcome, Unknown
from sinks.messages.guarded_http import Answer, GuardedHttp, HttpSettings, NoAnswer, plain
from sinks.messages.sms import segments_of, wrong_number

_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}\Z")
# Not valid, a short code, unsubscribed by STOP, no mobile, a landline, unknown there, a landline or out of reach.
_NO_ADDRESS = frozenset({21211, 21265, 21610, 21614, 21635, 30005, 30006})
_LATER = frozenset({30001, 30003})  # a queue is full; the phone is off
_DOWN = frozenset({20003, 20005, 21611, 30002})  # who we are, an account that is closed, a full queue of the sender


class TwilioSettings(HttpSettings):
    """How SMS leave by Twilio."""

    account: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$", description="Account SID, `AC…`.")
    api_key: str = Field("", pattern=r"^(SK[0-9a-fA-F]{32})?$", description="SID of an API key, `SK…`, where the "
                                                                            "secret is that of a key.")  # fmt: skip
    sender: str = Field(
        pattern=r"^(MG[0-9a-fA-F]{32}|\+[1-9][0-9]{6,14}|[0-9]{3,8}|[A-Za-z0-9 ]{1,11})$",
        description="A number, a short code, a name of at most 11 letters, or a Messaging Service, `MG…`.",
    )
    status_callback: str = Field("", max_length=2_048, pattern=r"^(https://\S+)?$",
                                 description="Where Twilio reports what became of each.")  # fmt: skip
    most_segments: int = Field(10, ge=1, le=10, description="Longer ones are not sent: each part is paid for.")
    url: str = Field("https://api.twilio.com", description="Where Twilio is.")


class TwilioChannel:
    """Sends each message by Twilio. Nothing lets Twilio know one again, so what got no answer is unknown.

    Args:
        secret: the auth token, or the secret of `api_key`.

    Raises:
        ConfigError: there is no secret.
    """

    def __init__(self, settings: TwilioSettings, secret: str, *, http: GuardedHttp | None = None,
                 clock: Callable[[], float] = time.time) -> None:  # fmt: skip
        if not secret:
            raise ConfigError("secret of Twilio", "is empty.", "Take the auth token from the console of Twilio.")
        self._settings = settings
        self._sent_from = "MessagingServiceSid" if _SERVICE.match(settings.sender) else "From"
        user = settings.api_key or settings.account
        self._headers = {"Content-Type": "application/x-www-form-urlencoded",
                         "Authorization": "Basic " + b64encode(f"{user}:{secret}".encode()).decode()}  # fmt: skip
        self._url = f"{settings.url.rstrip('/')}/2010-04-01/Accounts/{settings.account}/Messages.json"
        self._http = http or GuardedHttp(settings.allow)
        self._clock = clock

    async def send(self, message: Message) -> Outcome:
        if wrong := wrong_number(message.to):
            return wrong
        text = message.content.text.strip()
        if (segments := segments_of(text)) > self._settings.most_segments:
            return Declined(f"it makes {segments} messages in one; at most {self._settings.most_segments}")
        form = {"To": message.to, self._sent_from: self._settings.sender, "Body": text}
        if self._settings.status_callback:
            form["StatusCallback"] = self._settings.status_callback
        try:
            answer = await self._http.post(self._url, urlencode(form).encode(), self._headers)
        except NoAnswer as silence:
            return of_silence(silence)
        return _outcome(answer, self._clock())

    async def close(self) -> None:
        await self._http.close()


class _Said(msgspec.Struct):
    sid: str = ""
    code: int = 0
    message: str = ""


def _outcome(answer: Answer, now_s: float) -> Outcome:
    try:
        said = msgspec.json.decode(answer.body, type=_Said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = _Said()
    if 200 <= answer.status < 300:
        return Accepted(plain(said.sid))
    meant = of_status(answer, now_s)
    why = f"Twilio, error {said.code}: {plain(said.message)}" if said.code else f"Twilio {meant.why}"
    if said.code in _NO_ADDRESS:
        return Declined(why, is_address=True)
    if said.code in _DOWN or answer.status in (401, 403, 404):  # it is our account, not this message
        return Later(why, is_down=True)
    if said.code in _LATER:
        return Later(why)
    if answer.status == 504:  # what stands before Twilio did not wait for its answer
        return Unknown(why)
    return meant._replace(why=why)
