"""The processors of a contest: Tidewire's own, and copies of them where more are asked for."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path
from typing import Any

from processors.base import Processor
from processors.fold import Fold
from processors.registry import load_processors


def fold_of(work: str) -> Fold:
    """The first `work` of profile, visits, orders and then copies of them, each with a state of its own."""
    own = load_processors(Path("config"))
    chosen: list[Processor[Any]] = []
    for number, processor in enumerate(islice(cycle(own), int(work))):
        chosen.append(processor if number < len(own) else _copy(processor, number))
    return Fold(chosen)


def _copy(processor: Processor[Any], number: int) -> Processor[Any]:
    name = f"{processor.name}_{number}"
    copy: type[Processor[Any]] = type(name, (type(processor),), {"name": name, "tables": ()})
    return copy(processor.settings)
