"""What the parts of the suite share: figures with their spread, runs in turn, the machine, and one table of it all."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

MATTERS = (
    "tidewire", "faust-streaming", "mode-streaming", "aiokafka", "msgspec", "rocksdict", "uvicorn", "httptools",
    "uvloop", "chdb", "clickhouse-connect",
)  # fmt: skip
WIDEST_SPREAD = 0.25  # of a figure whose runs agree; one that spreads more is run again
MOST_MORE_RUNS = 2

Sample = TypeVar("Sample")


class LeftOut(RuntimeError):
    """This machine lacks something that a part needs; it says what."""


class Options(NamedTuple):
    """How a part is to be run.

    Attributes:
        is_quick: in seconds, to see that everything works; its figures say nothing, and no target is judged.
        runs: of each figure.
        only: names of the part's cells (workloads, grounds…); empty: all of them.
        say: told what is being done.
        data: a folder of real data, for parts that need it.
    """

    is_quick: bool
    runs: int
    only: tuple[str, ...]
    say: Callable[[str], None]
    data: Path | None = None

    def wants(self, cell: str) -> bool:
        return not self.only or cell in self.only


class Figure(NamedTuple):
    """One measured thing, all its runs, and its target where it has one."""

    what: str
    unit: str
    runs: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        return median(self.runs)

    @property
    def spread(self) -> float:
        return spread(self.runs)

    @property
    def is_met(self) -> bool | None:
        """Whether the median keeps the target; None where there is none."""
        if self.at_least is not None:
            return self.median >= self.at_least
        if self.at_most is not None:
            return self.median <= self.at_most
        return None

    def as_json(self, *, is_judged: bool) -> dict[str, Any]:
        target = {"at_least": self.at_least, "at_most": self.at_most}
        said: dict[str, Any] = {name: limit for name, limit in target.items() if limit is not None}
        if said and is_judged:
            said["met"] = self.is_met
        return {"what": self.what, "unit": self.unit, "median": rounded(self.median), "spread": round(self.spread, 3),
                "runs": [rounded(run) for run in self.runs], **said}  # fmt: skip


class Report(NamedTuple):
    """What a part found.

    Attributes:
        input: what was measured with, in plain values.
        found: the same figures in the part's own order, for programs.
        notes: what a reader must know to judge the figures, such as a peer that is left out and why.
    """

    input: Mapping[str, Any]
    figures: Sequence[Figure]
    found: Mapping[str, Any] = {}
    notes: Sequence[str] = ()


def spread(runs: Sequence[float]) -> float:
    """From the least to the most, as a share of the median.

    >>> spread([9.0, 10.0, 12.0])
    0.3
    """
    middle = median(runs)
    return (max(runs) - min(runs)) / middle if middle else 0.0


def rounded(value: float) -> float:
    """Four digits that count.

    >>> rounded(1234567.0), rounded(0.0123456), rounded(0)
    (1235000.0, 0.01235, 0.0)
    """
    return float(f"{value:.4g}")


def interleaved(
    contestants: Mapping[str, Callable[[], Sample]], runs: int, rate: Callable[[Sample], float], options: Options
) -> dict[str, list[Sample]]:
    """Let each contestant run in turn, A-B-A-B, so that a slow minute of the machine falls on all of them alike.

    While the rates of one spread too far, all run again, at most `MOST_MORE_RUNS` times; every run counts.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    turn = 0
    while turn < runs or (
        turn < runs + MOST_MORE_RUNS
        and runs > 1
        and any(spread([rate(sample) for sample in done]) > WIDEST_SPREAD for done in samples.values())
    ):
        turn += 1
        for name, run in contestants.items():
            sample = run()
            samples[name].append(sample)
            options.say(f"  run {turn}, {name}: {rate(sample):,.0f}")
    return samples


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least this share of them does not exceed.

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    return values[max(0, min(len(values) - 1, -int(-share * len(values) // 1) - 1))]


# --- the machine


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(), "cores": os.cpu_count(), "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.release()}", "python": platform.python_version(),
    }  # fmt: skip


def versions(packages: Iterable[str] = MATTERS) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def load_average() -> list[float]:
    return [round(load, 2) for load in os.getloadavg()]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gb() -> float:
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


# --- one run of a part, as JSON and as lines of the table


def measured(name: str, measure: Callable[[Options], Report], options: Options) -> dict[str, Any]:
    """Run a part; all that is known of the run, as JSON. One that this machine cannot run says so in its notes."""
    before, began = load_average(), datetime.now(UTC)
    try:
        report = measure(options)
    except LeftOut as lacking:
        report = Report(input={}, figures=(), notes=(f"{LEFT_OUT}{lacking}",))
    seconds = (datetime.now(UTC) - began).total_seconds()
    return {
        "part": name, "quick": options.is_quick, "at": began.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "machine": machine(), "versions": versions(), "load": {"before": before, "after": load_average()},
        "input": dict(report.input), "notes": list(report.notes), **report.found,
        "figures": [figure.as_json(is_judged=not options.is_quick) for figure in report.figures],
    }  # fmt: skip


LEFT_OUT = "left out: "
HEADINGS = ("part", "figure", "median", "unit", "spread", "runs", "target", "")


def lines_of(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The lines of the table for one part."""
    lines: list[tuple[str, ...]] = []
    for figure in result["figures"]:
        target, verdict = "", ""
        for name, sign in (("at_least", "≥"), ("at_most", "≤")):
            if name in figure:
                target = f"{sign} {shown(figure[name])}"
                verdict = "not judged" if "met" not in figure else "met" if figure["met"] else "MISSED"
        lines.append((
            result["part"], figure["what"], shown(figure["median"]), figure["unit"],
            f"{figure['spread']:.0%}" if len(figure["runs"]) > 1 else "", str(len(figure["runs"])), target, verdict,
        ))  # fmt: skip
    return lines


def shown(value: float) -> str:
    """A number for people.

    >>> shown(213456.0), shown(12.345), shown(0.7123)
    ('213,456', '12.3', '0.71')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(lines: Sequence[tuple[str, ...]]) -> str:
    """Lines under their headings, in columns; numbers to the right."""
    rows = [HEADINGS, *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    to_the_right = {HEADINGS.index(name) for name in ("median", "spread", "runs", "target")}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in to_the_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def about(result: Mapping[str, Any]) -> str:
    """What stands above the table: the machine, the versions and the load."""
    found = result["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gb']} GB, {found['system']}, "
        f"Python {found['python']}\n{packages}"
    )


def say(what: str) -> None:
    """To people, beside the results."""
    print(what, file=sys.stderr, flush=True)
