"""Templates, ready to be filled in for a person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from html import escape
from typing import Any, NamedTuple

from schemas.errors import shown
from schemas.templates import LONGEST_INBOX, LONGEST_SMS, PARTS, ApprovedText, Channel, Class, Content, TemplateFile
from sinks.messages.templating import (
    CannotFill,
    Locale,
    Part,
    WrongTemplate,
    compile_part,
    may_be_pointed_at,
    must_be_json,
)

GIVEN = "given"  # what was handed over together with the order to send: {{ given.coupon }}
MESSAGE = "message"  # what each message has of its own: {{ message.unsubscribe }}
OF_MESSAGE = ("unsubscribe", "preferences")
_EXAMPLES = {name: f"https://shop.example/{name}" for name in OF_MESSAGE}
LONGEST_SUBJECT = 500
LONGEST_LINK = 2_000
_NO_HEADER = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]|=\?")
_BODY = re.compile(r"<body\b[^>]*>", re.IGNORECASE)
_PARAMETER = "approved.parameters."  # of an approved text, before its name
_HIDDEN = "display:none;max-height:0;overflow:hidden;opacity:0"


class WrongPart(WrongTemplate):
    """A part of a template is wrong; `path` says where it stands, such as ("content", "en", "html")."""

    def __init__(self, path: tuple[str, ...], wrong: WrongTemplate) -> None:
        super().__init__(wrong.line, wrong.what, wrong.mend)
        self.path = path


class Approved(NamedTuple):
    """The text that a provider has approved, by its id there. `parameters` in the order of the template."""

    id: str
    sign: str
    parameters: Mapping[str, str]


class Rendered(NamedTuple):
    """A message as one person reads it; parts that its channel has not are empty. `approved`: what an SMS is where the
    provider takes no free text; `text` then says what it will read like. `link`: where a message of the inbox leads."""

    language: str
    subject: str
    preheader: str
    text: str
    html: str
    approved: Approved | None = None
    link: str = ""


@dataclass(frozen=True)
class Template:
    """One template, compiled.

    Attributes:
        version: its number, as it was saved; of a text that was not saved, the same for those that say the same.
        parts: by language, the first of which is for who speaks none of them, and by name: one of PARTS, or
            `approved.parameters.NAME`.
        approved: by language, where there is one.
    """

    name: str
    version: str
    channel: Channel
    kind: Class
    topic: str
    title: Mapping[str, str]
    about: str
    parts: Mapping[str, Mapping[str, Part]]
    approved: Mapping[str, ApprovedText]

    def render(
        self, sections: Mapping[str, Any], given: Mapping[str, Any] | None = None,
        message: Mapping[str, str] | None = None,
    ) -> Rendered:  # fmt: skip
        """The message for one person.

        Args:
            sections: what the processors show of her, by their names.
            given: what comes with the order to send.
            message: its own addresses, of OF_MESSAGE those there are; None: examples of all, as in a preview.

        Raises:
            CannotFill: she is not to be sent it; with the part and its line, and the mend.
        """
        language = self._language(sections)
        own = _EXAMPLES if message is None else {name: value for name, value in message.items() if value}
        values = {**sections, GIVEN: dict(given or {}), MESSAGE: own}
        parts = self.parts[language]
        filled = {name: _fill(part, values, f"content.{language}.{name}") for name, part in parts.items()}
        try:
            subject = _one_line(filled.get("subject", ""))
            if self.channel == "sms" and len(filled["text"]) > LONGEST_SMS:
                raise CannotFill(f"it has {len(filled['text']):,} characters, an SMS at most {LONGEST_SMS:,}.")
            html = _whole(filled.get("html", ""), filled.get("preheader", ""))
            if self.channel == "inbox" and len(filled["text"]) + len(html) > LONGEST_INBOX:
                raise CannotFill(f"its text and HTML have {len(filled['text']) + len(html):,} characters, in the "
                                 f"inbox at most {LONGEST_INBOX:,}.")  # fmt: skip
            if self.channel == "call":
                must_be_json(filled["text"])
            link = _link(filled.get("link", ""))
            approved = _approved(self.approved.get(language), filled)
        except CannotFill as cannot:
            raise CannotFill(f"content.{language}: {cannot}") from None
        return Rendered(language, subject, filled.get("preheader", ""), filled["text"], html, approved, link)

    def _language(self, sections: Mapping[str, Any]) -> str:
        """The language of hers that it has, else the first."""
        profile = sections.get("profile")
        locale = str(profile.get("locale") or "") if isinstance(profile, Mapping) else ""
        hers = locale.replace("-", "_").lower()
        for own in (hers, hers.partition("_")[0]):
            for language in self.parts:
                if language.lower() == own or (own and language.partition("_")[0] == own):
                    return language
        return next(iter(self.parts))

    @property
    def asked(self) -> Iterable[tuple[tuple[str, ...], str, int]]:
        """What it asks for: in which part, what, and on which line of it."""
        for language, parts in self.parts.items():
            for name, part in parts.items():
                for path, line in part.asked.items():
                    yield ("content", language, *name.split(".")), path, line


def compile_template(name: str, said: TemplateFile, zone: str) -> Template:
    """Compile what a file says.

    Args:
        zone: the time zone of days and hours that are printed.

    Raises:
        WrongPart: a part of it is wrong.
    """
    parts = {language: _compile(language, content, zone, said.channel) for language, content in said.content.items()}
    version = blake2b(said.model_dump_json(exclude_none=True).encode(), digest_size=4).hexdigest()
    approved = {language: content.approved for language, content in said.content.items() if content.approved}
    return Template(name, version, said.channel, said.kind, said.topic, dict(said.title), said.about, parts, approved)


def _compile(language: str, content: Content, zone: str, channel: Channel) -> dict[str, Part]:
    parts = {}
    begins = content.link.strip().partition("{")[0]
    if begins and not may_be_pointed_at(begins):
        raise WrongPart(("content", language, "link"), WrongTemplate(
            1, f"{shown(begins)} is no address that a message can point at.",
            "Let it begin with https://."))  # fmt: skip
    for name, source in _sources(content):
        try:
            parts[name] = compile_part(source, Locale(language, zone), is_html=name == "html",
                                       is_json=channel == "call")  # fmt: skip
        except WrongTemplate as wrong:
            raise WrongPart(("content", language, *name.split(".")), wrong) from None
    return parts


def _sources(content: Content) -> Iterator[tuple[str, str]]:
    for name in PARTS:
        if source := getattr(content, name):
            yield name, source
    for name, source in content.approved.parameters.items() if content.approved else ():
        yield _PARAMETER + name, source


def _approved(said: ApprovedText | None, filled: Mapping[str, str]) -> Approved | None:
    if said is None:
        return None
    parameters = {name: filled[_PARAMETER + name].strip() for name in said.parameters}
    size = sum(map(len, parameters.values()))
    if size > LONGEST_SMS:
        raise CannotFill(f"its approved parameters have {size:,} characters, an SMS at most {LONGEST_SMS:,}.")
    return Approved(said.id, said.sign, parameters)


def _fill(part: Part, values: Mapping[str, Any], place: str) -> str:
    try:
        return part.fill(values)
    except CannotFill as cannot:
        raise CannotFill(f"{place}: {cannot}") from None


def _one_line(subject: str) -> str:
    """A subject that can be a header of a mail and nothing else.

    Raises:
        CannotFill: it holds a line break or a control character, or what mail programs would decode anew.
    """
    subject = subject.strip(" \n")
    if found := _NO_HEADER.search(subject):
        raise CannotFill(f"the subject holds {found[0]!r}, which a header of a mail may not: {shown(subject)}")
    if len(subject) > LONGEST_SUBJECT:
        raise CannotFill(f"the subject has {len(subject):,} characters; at most {LONGEST_SUBJECT}.")
    return subject


def _link(address: str) -> str:
    """What a message of the inbox leads to: a page of whoever shows it follows it, so it is no script.

    Raises:
        CannotFill: it is no address that a message may point at.
    """
    address = address.strip()
    if address and not may_be_pointed_at(address):
        raise CannotFill(f"the link {shown(address)} is no address that a message can point at; let it begin with "
                         "https://.")  # fmt: skip
    if len(address) > LONGEST_LINK:
        raise CannotFill(f"the link has {len(address):,} characters; at most {LONGEST_LINK:,}.")
    return address


def _whole(html: str, preheader: str) -> str:
    """The HTML with its preheader, which mailboxes show and mails hide, and its styles in its tags."""
    if not html:
        return ""
    from css_inline import CSSInliner, InlineError

    hidden = f'<div style="{_HIDDEN}">{escape(" ".join(preheader.split()))}</div>' if preheader else ""
    body = _BODY.search(html)
    at = body.end() if body else 0
    try:
        return CSSInliner(keep_style_tags=True, load_remote_stylesheets=False).inline(html[:at] + hidden + html[at:])
    except InlineError as error:
        raise CannotFill(f"its styles cannot be written into its tags: {error}.") from None
