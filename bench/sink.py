"""Rows per second of the ClickHouse sink, beside a raw columnar insert of the same rows into the same table.

Two kinds of events: `orders` of a server, and those of a `browser` with page and campaign. Each as
`bench/contestants/rows.py` says, in turn, in one process with chDB.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.child import run
from bench.measure import Figure, Options, Report, rounded

ROWS, QUICK_ROWS = 20_000, 1_000
NAMES = {"raw": "raw block", "columns": "bare columns", "sink": "sink", "whole": "sink from log to commit"}


def measure(options: Options) -> Report:
    rows = QUICK_ROWS if options.is_quick else ROWS
    figures: list[Figure] = []
    found: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    for kind in filter(options.wants, ("orders", "browser")):
        options.say(f" {kind}: {rows} rows an insert")
        said = run("bench.contestants.rows", {"events": kind, "rows": rows, "rounds": options.runs})
        sizes[f"{kind}_event_bytes"] = said["event_bytes"]
        medians: dict[str, float] = {}
        for way, done in said["ways"].items():
            per_cpu_s = Figure(f"{kind} {NAMES[way]}", "rows/CPU-s", [each["rows"] / each["cpu_s"] for each in done])
            per_s = Figure(f"{kind} {NAMES[way]} wall", "rows/s", [each["rows"] / each["wall_s"] for each in done])
            medians[way] = per_cpu_s.median
            figures += [per_cpu_s, per_s]
        ratios = {f"ratio_{way}": medians["sink"] / medians[way] for way in ("raw", "columns")}
        figures += [Figure(f"{kind} sink of {NAMES[name.removeprefix('ratio_')]}", "×", [ratio])
                    for name, ratio in ratios.items()]  # fmt: skip
        found[kind] = {
            "rows_per_cpu_s": {way: rounded(rate) for way, rate in medians.items()},
            "rows_per_s": {way: rounded(median(each["rows"] / each["wall_s"] for each in done))
                           for way, done in said["ways"].items()},
            **{name: rounded(ratio) for name, ratio in ratios.items()},
        }  # fmt: skip
    return Report(input={"rows": rows, **sizes}, figures=figures, found=found)
