"""The suite: `python -m bench` measures everything, `python -m bench engine --json` one part.

    python -m bench [NAME…] [--quick] [--runs N] [--only CELL,…] [--data DIR] [--json] [--out FILE]

Prints one table; with `--json` the same as JSON instead. `--out` also keeps the JSON in a file,
each part in the place of its earlier run. docs/benchmarks.md says what each part measures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.measure import Options, about, lines_of, measured, say, table

PARTS = {
    "engine": "events per CPU-second beside Quix Streams, Faust and a bare consumer; "
              "--only hot,uniform,zipf,hot_4kb,uniform_4kb",
    "processors": "the same with real processors; --only 1,3,10",
    "collector": "requests per second beside a bare ASGI callable",
    "sink": "rows per second into ClickHouse beside a bare columnar insert",
    "latency": "from HTTP to state and to ClickHouse at 10, 50 and 80 % of capacity",
    "recovery": "seconds and memory to restore the state of a million people",
    "growth": "cost when people, state, processors and partitions grow",
    "scaling": "events per second while a worker is added under load, and taken away",
    "segments": "an event with 1 to 500 segments, previews of a million events, 10,000 who leave at once, freshness; "
                "--only cost,preview,leaving,fresh",
    "journeys": "an event with 0 to 50 journeys, 100,000 who wait, event to message, 10,000 due in the same second; "
                "--only cost,waiting,live",
    "messages": "messages per second through each channel, and the time from order to arrival; "
                "--only outbox,smtp,webhook",
    "whole_way": "from HTTP to rows in ClickHouse; --only embedded,kafka",
    "rfm": "RFM groups of real customers beside a plain pandas computation; needs --data",
    "lift": "how often the interval of lift is wrong over 1,000 simulated experiments, looked at every day",
    "log": "records per second into and out of the log; --only embedded,kafka",
}  # fmt: skip
OF_DATA = frozenset({"rfm"})  # parts that need --data; without it a run of all leaves them out
FULL_RUNS, QUICK_RUNS = 5, 1


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure how fast Tidewire is on this machine.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {name:11} {about_it}" for name, about_it in PARTS.items()),
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts; without any, all")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; judges no target")
    parser.add_argument("--runs", type=int, help=f"of each figure; default {FULL_RUNS}, with --quick {QUICK_RUNS}")
    parser.add_argument("--only", default="", help="cells of the parts, separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--out", type=Path, help="keep the JSON in this file, too; other parts in it stay")
    parser.add_argument("--data", type=Path, help="folder of real data, for the parts that need it")
    given = parser.parse_args(arguments)
    for name in given.names:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; parts are: {', '.join(PARTS)}")
        if name in OF_DATA and given.data is None:
            parser.error(f"{name} needs --data DIR")
    only = tuple(filter(None, given.only.split(",")))
    runs = given.runs or (QUICK_RUNS if given.quick else FULL_RUNS)
    options = Options(given.quick, runs, only, say, given.data)
    results = []
    for name in given.names or [name for name in PARTS if given.data is not None or name not in OF_DATA]:
        results.append(_run(name, options))
        if given.out is not None:
            _keep(results[-1], given.out)
    if given.json:
        print(json.dumps(results[0] if len(given.names) == 1 else results, indent=1))
    else:
        _print(results)
    return 1 if any(not result["figures"] for result in results) else 0


def _keep(result: dict[str, Any], file: Path) -> None:
    """Put the result of a part into a file, in the place of an earlier one; those of other parts stay."""
    kept = json.loads(file.read_text()) if file.exists() else []
    by_part = {each["part"]: each for each in kept} | {result["part"]: result}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([by_part[name] for name in PARTS if name in by_part], indent=1) + "\n")


def _run(name: str, options: Options) -> dict[str, Any]:
    options.say(f"{name}: {PARTS[name].partition(';')[0]}")
    return measured(name, import_module(f"bench.{name}").measure, options)


def _print(results: Sequence[dict[str, Any]]) -> None:
    print(about(results[0]))
    for result in results:
        size = ", ".join(f"{name} {value}" for name, value in result["input"].items())
        print(f"{result['part']}: {result['seconds']:.0f} s, load before {result['load']['before'][0]}; {size}")
    print("\n" + table([line for result in results for line in lines_of(result)]))
    for result in results:
        for note in result["notes"]:
            print(f"{result['part']}: {note}")


if __name__ == "__main__":
    sys.exit(main())
