"""Run the rows of the fault matrix; see docs/faults.md.

    python -m tests.faults                    every row, once
    python -m tests.faults --row 3 --row 7    these rows; variants of a row share its number
    python -m tests.faults --long --times 5   all sizes large, five seeds each
    python -m tests.faults --jobs 2           two rows at a time, those aside that need the machine for themselves

A line for each run, `row, seed, lost, doubled, recovery_s`, and at the end `N passed, N failed`. The exit code is 1 if
any failed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import TracebackType

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


def chosen(rows: Sequence[Row], named: Sequence[str], *, is_long: bool, is_short: bool) -> list[Row]:
    """The rows to run: those that are named, by number or as `number:name`, however long they take.

    Raises:
        SystemExit: a number that no row has.
    """
    if named:
        known = {row.number for row in rows} | {_full_name(row) for row in rows}
        if unknown := sorted(set(named) - known):
            numbers = " ".join(dict.fromkeys(row.number for row in rows))
            sys.exit(f"There is no row {', '.join(unknown)}. Rows are: {numbers}.")
        return [row for row in rows if row.number in named or _full_name(row) in named]
    return [row for row in rows if (is_long or not row.is_long_only) and (row.is_short or not is_short)]


def _full_name(row: Row) -> str:
    return f"{row.number}:{row.name}"


class Apart:
    """Runs in processes of their own, several at a time, as a context manager that ends them."""

    def __init__(self, options: Sequence[str]) -> None:
        self._options = options
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Apart:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Ask those that run to end; they end their own processes first."""
        while self._processes:
            process = self._processes.pop()
            if process.poll() is None:
                process.terminate()

    def lines(self, runs: Sequence[tuple[Row, int]], jobs: int) -> Iterator[tuple[str, bool]]:
        """The line of each run, as it ends, and whether it passed."""
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for future in as_completed([pool.submit(self._run, row, seed) for row, seed in runs]):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.end()
                raise

    def _run(self, row: Row, seed: int) -> tuple[str, bool]:
        command = [sys.executable, "-m", "tests.faults", "--row", _full_name(row), "--seed", str(seed), *self._options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        said, _ = process.communicate()
        lines = said.splitlines()[1:-1]  # less its head and its sum
        return "\n".join(lines) or f"{row.number:<5} {row.name} ended with {process.returncode}", not process.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition(";")[0] + ".")
    parser.add_argument("--row", action="append", default=[], metavar="N", help="only this row; may be given again")
    parser.add_argument("--seed", type=int, help="throw these dice; default: new ones, which are printed")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="run each row N times, with other seeds")
    parser.add_argument("--long", action="store_true", help="large sizes, and the rows that take long")
    parser.add_argument("--short", action="store_true", help="only the rows that every `make test` runs")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many rows at a time, where they allow it")
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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    first = given.seed if given.seed is not None else random.randrange(10**6)
    runs = [(row, first + turn) for row in rows for turn in range(given.times)]
    began, passed, failed = time.monotonic(), 0, 0
    print(HEAD, flush=True)
    try:
        for line, is_well in _told(runs, given):
            print(line, flush=True)
            passed, failed = passed + is_well, failed + (not is_well)
    except KeyboardInterrupt:
        print(f"Stopped: {len(runs) - passed - failed} of {len(runs)} were not done.", file=sys.stderr)
        return 130
    print(f"{passed} passed, {failed} failed, in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if failed else 0


def _stop(number: int, frame: object) -> None:
    """Stop, once: the processes of the run are ended then, and nobody may break that off."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _told(runs: Sequence[tuple[Row, int]], given: argparse.Namespace) -> Iterator[tuple[str, bool]]:
    if given.jobs > 1:
        options = [*(["--long"] if given.long else []), *(["--keep", str(given.keep)] if given.keep else [])]
        with Apart(options) as apart:
            yield from apart.lines([each for each in runs if not each[0].is_alone], given.jobs)
            yield from apart.lines([each for each in runs if each[0].is_alone], 1)
        return
    for row, seed in runs:
        started = time.monotonic()
        outcome, wrong = run(row, seed, is_long=given.long, keep=given.keep)
        yield line_of(row, seed, outcome, wrong, time.monotonic() - started), not wrong


if __name__ == "__main__":
    sys.exit(main())
