"""Templates of messages: what a file or a page says of one, and what topic `templates` holds of each."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

LONGEST_SMS = 1_600  # characters; of ten messages in one, what operators carry
LONGEST_INBOX = 20_000  # characters of text and HTML together: a hundred of them are one answer
LANGUAGE = r"^[a-z]{2,3}(_[A-Z][a-z]{3})?(_[A-Z]{2})?$"

Channel = Literal["email", "sms", "inbox", "call"]
Class = Literal["marketing", "transactional"]
PARTS = ("subject", "preheader", "text", "html", "link")


class ApprovedText(BaseModel):
    """A text that a provider of SMS has approved: it is named, and only its parameters are ours. See docs/sms.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Its id at the provider, such as `SMS_123456789`.")
    sign: str = Field("", max_length=100, description="The approved signature; empty: that of the channel.")
    parameters: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")], Annotated[str, Field(min_length=1)]],
        Field(max_length=20),
    ] = Field(default_factory=dict, description="By name, each a template; where the provider counts them, in order.")


class Content(BaseModel):
    """What a message says in one language. Every part is a template, see docs/templates.md."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: str = Field("", max_length=1_000, description="Of a mail, and the title in the inbox: one line.")
    preheader: str = Field("", max_length=1_000, description="What mailboxes show behind the subject. It needs `html`.")
    text: str = Field(min_length=1, description="What is read where there is no HTML, and all of an SMS; of a call "
                                                "the JSON that the other program gets.")  # fmt: skip
    html: str = Field("", description="A whole HTML page; its `<style>` is written into its tags.")
    link: str = Field("", max_length=2_000, description="Of the inbox: the address that the message leads to.")
    approved: ApprovedText | None = Field(None, description="Of an SMS through a provider that approves texts.")


class TemplateFile(BaseModel):
    """One template."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Annotated[dict[str, str], Field(max_length=10)] = Field(
        default_factory=dict, description="Its name for people, by language: `{en: Welcome, zh: 欢迎}`."
    )
    about: str = Field("", max_length=1_000, description="What it is for.")
    channel: Channel = Field(description="How it leaves; `call` tells another program.")
    kind: Class = Field(
        description="`marketing` asks for consent and is sent at most once, `transactional` at least once."
    )
    topic: str = Field(
        "", max_length=100, description="Of a marketing message: what people consent to, such as `offers`."
    )
    content: Annotated[dict[Annotated[str, Field(pattern=LANGUAGE)], Content], Field(min_length=1, max_length=30)] = (
        Field(description="What it says, by language; who speaks none of them reads the first.")
    )

    @model_validator(mode="after")
    def _goes_together(self) -> TemplateFile:
        if self.kind == "marketing" and not self.topic:
            raise PydanticCustomError("topic", "a marketing message needs a topic: what people consent to")
        if self.kind == "transactional" and self.topic:
            raise PydanticCustomError("topic", "a transactional message asks for no consent, so it has no topic")
        if self.channel == "call" and self.kind != "transactional":
            raise PydanticCustomError("call", "a call tells another program and nobody else, so it is transactional")
        for language, content in self.content.items():
            if self.channel == "call" and any((content.subject, content.preheader, content.html, content.approved)):
                raise PydanticCustomError("call", "a call has only a text, no subject, preheader, html or approved "
                                                  "text (content.{language})", {"language": language})  # fmt: skip
            if self.channel == "email" and not content.subject.strip():
                raise PydanticCustomError(
                    "subject", "a mail needs a subject (content.{language})", {"language": language}
                )
            if self.channel == "sms" and (content.subject or content.preheader or content.html):
                raise PydanticCustomError(
                    "sms", "an SMS has no subject, preheader or html (content.{language})", {"language": language}
                )
            if self.channel == "email" and content.approved:
                raise PydanticCustomError(
                    "approved", "a mail has no approved text (content.{language})", {"language": language}
                )
            if self.channel != "inbox" and content.link:
                raise PydanticCustomError("link", "only the inbox has a link (content.{language})",
                                          {"language": language})  # fmt: skip
            if self.channel == "inbox" and not content.subject.strip():
                raise PydanticCustomError("subject", "a message in the inbox needs a subject: its title "
                                                     "(content.{language})", {"language": language})  # fmt: skip
            if self.channel == "inbox" and (content.preheader or content.approved):
                raise PydanticCustomError("inbox", "the inbox has no preheader and no approved text "
                                                   "(content.{language})", {"language": language})  # fmt: skip
            if content.preheader and not content.html:
                raise PydanticCustomError(
                    "preheader", "a preheader needs html (content.{language})", {"language": language}
                )
        return self


class SavedTemplate(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A version of a template, as it stands in topic `templates`. JSON.

    Attributes:
        name: of the template.
        version: grows by one with every change.
        id: tells apart what two people saved as the same version; the first of them in the log counts.
        text: the YAML, as it was written; it was checked before.
        by: who wrote this version; at_ms: when.
        source: `file` or `page`: where this version was written.
        from_file: of the text of the file that was last taken over; so what was changed on the page since stays.
        is_gone: the template was taken out; nothing can be sent by it.
    """

    name: str
    version: int
    id: str
    text: str = ""
    by: str = ""
    at_ms: int = 0
    source: Literal["file", "page"] = "file"
    from_file: str = ""
    is_gone: bool = False


encode_saved = msgspec.json.Encoder(order="sorted").encode
decode_saved = msgspec.json.Decoder(SavedTemplate).decode
