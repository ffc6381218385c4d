"""What is rehearsed: the journeys, segments, templates and limits that people are led by, of the config folder or of a
running Tidewire, and what the customer stage is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from config.journeys import (
    check_journeys_together,
    conditions_of,
    mail_of,
    parse_journey,
    read_journeys,
    read_limits,
    segments_of,
)
from config.segments import read_segments
from processors.fold import Fold
from processors.registry import load_processors
from schemas.conditions import InSegment, canonical, leaves_of, read_condition
from schemas.journeys import JourneyFile, Led, LedJourney, Mail
from schemas.segments import Cuts, Definitions, Said


@dataclass(frozen=True)
class Rehearsal:
    """What people are judged and led by.

    Attributes:
        config: the folder that processors have their settings from.
        segments: their definitions, by name, with those of stages.
        journeys: the newest version of each, by name.
        mails: what journeys must know of templates, by name.
        limits: `schemas.journeys.Limits`, as plain values.
    """

    config: Path
    workspace: str
    zone: str
    segments: Mapping[str, Said]
    journeys: Mapping[str, LedJourney]
    mails: Mapping[str, Mail]
    limits: Mapping[str, Any] = field(default_factory=dict)

    def fold(self) -> Fold:
        return Fold(load_processors(self.config))

    def with_journey(self, journey: LedJourney) -> Rehearsal:
        """The same with this journey, instead of the one of its name."""
        return replace(self, journeys={**self.journeys, journey.name: journey})

    def with_draft(self, name: str, text: str, file: str = "") -> Rehearsal:
        """The same with a journey as somebody wrote it, and has not saved.

        Args:
            file: how messages name it.

        Raises:
            ConfigError: it is wrong, or asks for what is not there; with the line.
        """
        read = parse_journey(name, text, self.config, self.zone, file)
        check_journeys_together({name: read}, self.segments, self.mails)
        before = self.journeys.get(name)
        version = before.version + 1 if before is not None else 1
        return self.with_journey(LedJourney(name=name, version=version, said=read.plain))

    def definitions(
        self, names: Iterable[str], *, are_led: bool = True, cuts: Iterable[Cuts] = (),
        segments: Mapping[str, Said] | None = None,
    ) -> Definitions:  # fmt: skip
        """What the stage is told, of these journeys alone, and of the segments that they ask for.

        Args:
            are_led: people enter them; else what they ask for is remembered.
            segments: definitions instead of others of their names.
        """
        journeys = [self.journeys[name] for name in sorted(names)]
        said = {each.name: JourneyFile.model_validate(each.said) for each in journeys}
        known = {**self.segments, **(segments or {})}
        asked: dict[str, Said] = {}
        for each in said.values():
            for _, name in segments_of(each):
                _gather(name, known, asked)
        remembered = [each for journey in journeys for each in remembered_for(journey.name, journey.version,
                                                                             said[journey.name])]  # fmt: skip
        led = Led(journeys=journeys if are_led else [], mails=dict(self.mails), limits=dict(self.limits),
                  workspace=self.workspace)  # fmt: skip
        return Definitions(zone=self.zone, definitions=[*asked.values(), *remembered], cuts=list(cuts), journeys=led)

    def uses_rfm(self, names: Iterable[str]) -> bool:
        """Whether one of these journeys asks for scores of RFM, itself or by a segment."""
        return any(b'"rfm.' in msgspec.json.encode(said.when) for said in self.definitions(names).definitions)


class _Told(msgspec.Struct):
    """A rehearsal on its way from one process to another."""

    workspace: str
    zone: str
    segments: dict[str, Said]
    journeys: dict[str, LedJourney]
    mails: dict[str, Mail]
    limits: dict[str, Any]


_decode = msgspec.json.Decoder(_Told).decode


def encode_rehearsal(rehearsal: Rehearsal) -> bytes:
    told = _Told(rehearsal.workspace, rehearsal.zone, dict(rehearsal.segments), dict(rehearsal.journeys),
                 dict(rehearsal.mails), dict(rehearsal.limits))  # fmt: skip
    return msgspec.json.encode(told)


def decode_rehearsal(told: bytes | str, config: Path) -> Rehearsal:
    """What `encode_rehearsal` wrote, for processors with the settings of this config folder."""
    read = _decode(told)
    return Rehearsal(config, read.workspace, read.zone, read.segments, read.journeys, read.mails, read.limits)


def remembered_for(name: str, version: int, said: JourneyFile) -> Iterable[Said]:
    """What is to be remembered so that the conditions of a journey can be answered; nobody is in them."""
    for number, (_, condition) in enumerate(conditions_of(said)):
        yield Said(name=f"journey.{name}.{version}.{number}", version=1, when=plain(condition))


def plain(condition: Any) -> Any:
    """A condition as JSON has it."""
    return msgspec.json.decode(canonical(condition))


def _gather(name: str, known: Mapping[str, Said], asked: dict[str, Said]) -> None:
    """A segment, and those that it asks for, before it."""
    if name in asked or name not in known:
        return
    for leaf in leaves_of(read_condition(known[name].when)):
        if isinstance(leaf, InSegment):
            _gather(leaf.segment, known, asked)
    asked[name] = known[name]


def rehearsal_of(config: Path, workspace: str, zone: str) -> Rehearsal:
    """What would be live by the files of a config folder.

    Raises:
        ConfigError: one of them is wrong; with file and line.
    """
    from config.templates import read_templates

    journeys = read_journeys(config, zone)
    segments = read_segments(config)
    mails = {name: mail_of(template) for name, template in read_templates(config, zone).items()}
    check_journeys_together(journeys, segments, mails)
    return Rehearsal(
        config, workspace, zone,
        {name: Said(name=name, version=1, when=plain(each.when), is_live=True) for name, each in segments.items()},
        {name: LedJourney(name=name, version=1, said=each.plain) for name, each in journeys.items()},
        mails, read_limits(config).model_dump(mode="json", by_alias=True, exclude_none=True),
    )  # fmt: skip
