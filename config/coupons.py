"""Coupon campaigns as YAML: config/coupons/NAME.yaml

    title: {en: Spring, zh: 春季}
    about: Ten euros for who orders for a hundred.
    codes:
      generated: {prefix: SPRING, length: 10}
    worth: {amount: 10, currency: EUR}
    expires: 30 days after given
    budget: {codes: 10000, amount: 50000}
    give_when: {did: Order Completed, where: {total: {at_least: 100}}}

The name of the file is the name of the campaign. docs/coupons.md says what each key means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, cast

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from config.yaml_file import YamlFile, read_text, read_yaml
from processors.amounts import UNIT
from processors.values import zone_named
from schemas.codes import LONGEST, PREFIX, SHORTEST, most_codes, normal
from schemas.conditions import (
    Condition,
    Did,
    Duration,
    InSegment,
    Number,
    SegmentName,
    WrongCondition,
    canonical,
    duration_of,
    problems_of,
    read_condition,
)
from schemas.coupons import PERCENT, Campaign
from schemas.errors import ConfigError, shown

FOLDER = "coupons"  # of the config folder
MOST_CAMPAIGNS = 500
MOST_POOL = 1_000_000  # codes of one pool
LARGEST_WORTH = 1_000_000
LARGEST_BUDGET = 1e12
LARGEST_BYTES = 4_000  # of a campaign, without its pool: the desk of the stage keeps all of them in one record
_AFTER = re.compile(r"\s*(.+?)\s+after\s+given\s*\Z")
_NAME: TypeAdapter[str] = TypeAdapter(SegmentName)  # names of campaigns are as those of segments


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Generated(_Said):
    """Codes that are made: `PREFIX-` and so many letters and digits that nobody can guess."""

    prefix: str = Field(pattern=rf"^{PREFIX}$", description="Capital letters and digits, at most 12.")
    length: int = Field(10, ge=SHORTEST, le=LONGEST, strict=True, description="Characters behind the prefix.")


class Codes(_Said):
    """Where the codes come from: exactly one of these."""

    generated: Generated | None = None
    file: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
                             description="A file beside this one, with one code a line.")  # fmt: skip

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.generated is None) == (self.file is None):
            raise ValueError("say generated or file, one of them")
        return self


class Worth(_Said):
    """What a coupon is worth: money, or percent."""

    amount: Number | None = Field(None, gt=0, le=LARGEST_WORTH)
    currency: str = Field("", pattern=r"^([A-Z]{3})?$", description="With `amount`: three letters, such as EUR.")
    percent: Number | None = Field(None, gt=0, le=100)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.amount is None) == (self.percent is None):
            raise ValueError("say amount and currency, or percent")
        if (self.amount is None) == bool(self.currency):
            raise ValueError("amount needs a currency, such as EUR; percent has none")
        return self


class Budget(_Said):
    """When nothing more is given."""

    codes: int | None = Field(default=None, ge=1, le=100_000_000, strict=True, description="After so many coupons.")
    amount: Number | None = Field(
        default=None, gt=0, le=LARGEST_BUDGET,
        description="When the worth of all that were given, used or not, would come to more, in the currency of worth.",
    )  # fmt: skip


def _expires(value: Any) -> Duration | date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    text = value if isinstance(value, str) else ""
    if (after := _AFTER.match(text)) is not None:
        duration = duration_of(after[1])
        if duration.is_calendar:
            raise ValueError("write minutes, hours, days or weeks after given")
        return duration
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("write how long, such as 30 days after given, or the last day, such as 2027-03-31") from None


class CampaignFile(_Said):
    """One coupon campaign."""

    title: Annotated[dict[str, str], Field(max_length=10)] = Field(
        default_factory=dict, description="Its name for people, by language: `{en: Spring, zh: 春季}`."
    )
    about: str = Field("", max_length=1_000, description="What it is for.")
    codes: Codes
    worth: Worth
    expires: Annotated[Duration | date, BeforeValidator(_expires)] = Field(
        description="`30 days after given`; or the last day on which coupons are given and good."
    )
    budget: Budget = Field(default_factory=Budget)
    give_when: Condition | None = Field(None, description="On which event, or in which segment, it is given by itself.")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.budget.amount is not None and self.worth.amount is None:
            raise ValueError("budget.amount needs a worth in money: what some percent come to, only orders say")
        if self.codes.generated is not None and self.budget.codes is not None:
            most = most_codes(self.codes.generated.length)
            if self.budget.codes > most:
                raise ValueError(f"of length {self.codes.generated.length} there are at most {most:,} codes, so that "
                                 "nobody guesses one: write a greater length")  # fmt: skip
        when = self.give_when
        if when is not None and not isinstance(when, InSegment) and not _is_event(when):
            raise ValueError("give_when is one event, {did: …, where: …}, or {segment: …}; for counts, sums and times "
                             "write a segment")  # fmt: skip
        return self


def _is_event(when: Any) -> bool:
    return isinstance(when, Did) and not when.is_counted and when.within is None and when.since is None


class CampaignRead(NamedTuple):
    """A campaign as its file says it, with the codes of its pool, and when it is given by itself."""

    campaign: Campaign
    pool: Sequence[str]
    when: Did | InSegment | None


def read_campaigns(config: Path, zone: str) -> dict[str, CampaignRead]:
    """The campaigns of the config folder, by name.

    Args:
        zone: the time zone in which days end.

    Raises:
        ConfigError: with file and line, the path, the value and the mend.
    """
    folder = config / FOLDER
    for file in sorted(folder.glob("*.yml")):
        raise ConfigError(str(file), "is not read.", "Let its name end with .yaml.")
    files = sorted(folder.glob("*.yaml"))
    if len(files) > MOST_CAMPAIGNS:
        raise ConfigError(str(folder), f"holds {len(files)} campaigns; at most {MOST_CAMPAIGNS}.")
    found = {file.stem: _campaign(file.stem, read_yaml(file), folder, zone) for file in files}
    _refuse_shared(found, folder)
    return found


def _campaign(name: str, file: YamlFile, folder: Path, zone: str) -> CampaignRead:
    said = _read(name, file)
    generated, pool = said.codes.generated, list[str]()
    if said.codes.file is not None:
        pool = read_pool(folder / said.codes.file)
    expires, worth = said.expires, said.worth
    ends_ms = zone_named(zone).midnight_ms(expires + timedelta(days=1)) if isinstance(expires, date) else 0
    campaign = Campaign(
        name=name, title=dict(said.title), about=said.about,
        prefix=generated.prefix if generated else "", length=generated.length if generated else 0,
        pool=blake2b("\n".join(pool).encode(), digest_size=16).hexdigest() if said.codes.file else "",
        worth=_in_units(worth.amount if worth.amount is not None else worth.percent),
        unit=worth.currency or PERCENT,
        expires=expires.isoformat() if isinstance(expires, date) else f"{expires} after given",
        expires_after_ms=0 if isinstance(expires, date) else expires.ms, ends_ms=ends_ms,
        most_codes=said.budget.codes or 0, most_worth=_in_units(said.budget.amount),
        when=msgspec.json.decode(canonical(said.give_when)) if said.give_when is not None else {},
    )  # fmt: skip
    if len(msgspec.json.encode(campaign)) > LARGEST_BYTES:
        raise ConfigError(file.place(), f"has more than {LARGEST_BYTES:,} bytes.", "Shorten title, about or give_when.")
    return CampaignRead(campaign, pool, cast("Did | InSegment | None", said.give_when))


def _in_units(amount: int | float | None) -> int:
    return 0 if amount is None else round(amount * UNIT)


def _read(name: str, file: YamlFile) -> CampaignFile:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise ConfigError(file.name, f'"{name}" cannot be the name of a campaign.',
                          "Use lower case letters, digits and _, at most 63, a letter first.") from None  # fmt: skip
    if not isinstance(file.values, dict):
        raise ConfigError(file.place(), "holds no campaign.", "Write `codes:`, `worth:` and `expires:`.")
    try:
        if file.values.get("give_when") is not None:
            read_condition(file.values["give_when"])
        return CampaignFile.model_validate(file.values)
    except WrongCondition as wrong:
        problem = wrong.problems[0]
        path: tuple[str | int, ...] = ("give_when", *problem.path)
        raise ConfigError(file.place(path), _told(path, problem.what, problem.value),
                          "docs/segments.md says what conditions there are.") from None  # fmt: skip
    except ValidationError as error:
        problem = problems_of(error)[0]
        mend = f"It may hold {', '.join(CampaignFile.model_fields)}." if len(problem.path) == 1 else ""
        raise ConfigError(file.place(problem.path), _told(problem.path, problem.what, problem.value), mend) from None


def _told(path: Sequence[str | int], what: str, value: Any) -> str:
    got = "" if not path or value is None or isinstance(value, dict) else f"; got {shown(value)}"
    return f'"{".".join(map(str, path))}": {what}{got}.' if path else f"{what}."


def read_pool(file: Path) -> list[str]:
    """The codes of a pool, in capital letters, in the order of the file. Empty lines count nothing.

    Raises:
        ConfigError: the file cannot be read, a line is no code, a code stands there twice; there are none, or too many.
    """
    lines: dict[str, int] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        code = normal(line)
        if not code:
            raise ConfigError(f"{file}:{number}", f"{shown(line)} is no code.",
                              "A code has letters, digits, - and _, at most 64, no - or _ at its ends.")  # fmt: skip
        if lines.setdefault(code, number) != number:
            raise ConfigError(f"{file}:{number}", f"{code} stands in line {lines[code]}, too.", "Take one of them out.")
    if not lines:
        raise ConfigError(str(file), "holds no code.", "Write one code a line.")
    if len(lines) > MOST_POOL:
        raise ConfigError(str(file), f"holds {len(lines):,} codes; at most {MOST_POOL:,}.", "Make two campaigns of it.")
    return list(lines)


def _refuse_shared(found: Mapping[str, CampaignRead], folder: Path) -> None:
    """A code that two campaigns have would be given by one, and be missing to the other."""
    of: dict[str, str] = {}
    for name, each in found.items():
        for code in each.pool:
            if of.setdefault(code, name) != name:
                raise ConfigError(f"{folder / name}.yaml", f'code {code} is one of campaign "{of[code]}", too.',
                                  "Take it out of one of the two files.")  # fmt: skip
