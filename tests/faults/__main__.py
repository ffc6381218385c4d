"""Run the rows of the fault matrix; see docs/faults.md.

    python -m tests.faults                    every row, once
    python -m tests.faults --row 3 --row 7    these rows; variants of a row share its number
    python -m tests.faults --long --times 5   all sizes large, five seeds each

A line for each run, `row, seed, lost, doubled, recovery_s`, and at the end `N passed, N failed`. The exit code is 1 if
any failed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests import kafka_broker
from tests.faults.rows import Outcome, Row, Scene, all_rows

HEAD = f"{'row':<5} {'what':<44} {'ground':<9} {'seed':>7} {'lost':>5} {'doubled':>8} {'recovery_s':>11} {'limit_s':>8}"


def run(row: Row, seed: int, *, is_long: bool = False, keep: Path | None = None) -> tuple[Outcome | None, str]:
    """One run of one row: its outcome, None where it broke off, and what is wrong with it, empty where it passed."""
    folder = Path(tempfile.mkdtemp(prefix=f"tidewire-faults-{row.number}-"))
    scene = Scene(row, folder, seed, is_long)
    try:
        outcome = row.run(scene)
        wrong = "; ".join(row.faults_of(outcome))
        return outcome, wrong
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return None, wrong
    finally:
        scene.close()
        if keep is not None:
            shutil.copytree(folder, keep / folder.name, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def line_of(row: Row, seed: int, outcome: Outcome | None, wrong: str, took_s: float) -> str:
    told = f"{'-':>5} {'-':>8} {'-':>11}"
    if outcome is not None:
        told = f"{outcome.lost:>5} {outcome.doubled:>8} {outcome.recovery_s:>11.1f}"
    verdict = f"FAILED: {wrong}" if wrong else f"ok, {took_s:.0f} s"
    return f"{row.number:<5} {row.name[:44]:<44} {row.ground:<9} {seed:>7} {told} {row.limit_s:>8g}  {verdict}"


def chosen(rows: Sequence[Row], numbers: Sequence[str], *, is_long: bool, is_short: bool) -> list[Row]:
    """The rows to run; those that are named, however long they take.

    Raises:
        SystemExit: a number that no row has.
    """
    if numbers:
        unknown = sorted(set(numbers) - {row.number for row in rows})
        if unknown:
            known = " ".join(dict.fromkeys(row.number for row in rows))
            sys.exit(f"There is no row {', '.join(unknown)}. Rows are: {known}.")
        return [row for row in rows if row.number in numbers]
    return [row for row in rows if (is_long or not row.is_long_only) and (row.is_short or not is_short)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition(";")[0] + ".")
    parser.add_argument("--row", action="append", default=[], metavar="N", help="only this row; may be given again")
    parser.add_argument("--seed", type=int, help="throw these dice; default: new ones, which are printed")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="run each row N times, with other seeds")
    parser.add_argument("--long", action="store_true", help="large sizes, and the rows that take long")
    parser.add_argument("--short", action="store_true", help="only the rows that every `make test` runs")
    parser.add_argument("--list", action="store_true", help="say which rows there are")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the data and logs of every run in this folder")
    given = parser.parse_args(arguments)
    rows = chosen(all_rows(), given.row, is_long=given.long, is_short=given.short)
    if given.list:
        for row in rows:
            print(f"{row.number:<5} {row.name:<60} {row.ground:<9} within {row.limit_s:g} s")
        return 0
    lacking = kafka_broker.missing() if any(row.ground == "kafka" for row in rows) else ""
    if lacking:
        print(f"The rows on Kafka need {lacking} on this machine.", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that processes are ended then, too
    seed = given.seed if given.seed is not None else random.randrange(10**6)
    began, passed, failed = time.monotonic(), 0, 0
    print(HEAD, flush=True)
    for row in rows:
        for turn in range(given.times):
            started = time.monotonic()
            outcome, wrong = run(row, seed + turn, is_long=given.long, keep=given.keep)
            print(line_of(row, seed + turn, outcome, wrong, time.monotonic() - started), flush=True)
            passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f"{passed} passed, {failed} failed, in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
