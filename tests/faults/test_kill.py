"""`kill -9` at any moment: nothing is lost, nothing happens twice, every person is the same."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.history import write_history
from tests.faults.machine import COMMAND, WRITE_KEY, Process, counts_of, free_port, people_of

KILLS = int(os.environ.get("TIDEWIRE_TEST_KILLS", "4"))
SEED = int(os.environ.get("TIDEWIRE_TEST_SEED", str(random.randrange(10**6))))
IS_LONG = KILLS > 10
ORDERS, CUSTOMERS = 6_000, 1_500


@pytest.fixture
def history(tmp_path: Path) -> tuple[str, ...]:
    """Options of `demo` that name the history: CDNOW's own in the long form, a made-up one in the short."""
    if IS_LONG:
        return ()
    file = tmp_path / "history.txt"
    write_history(file, ORDERS, CUSTOMERS)
    return ("--file", str(file))


class Client:
    """`tidewire demo` as a client of its own process: sends to one address until everything was answered 200."""

    def __init__(self, url: str, said: Path, *options: str) -> None:
        with said.open("wb") as out:
            self._process = subprocess.Popen(
                [*COMMAND, "demo", "--url", url, "--write-key", WRITE_KEY, *options], stdout=out, stderr=out,
                env={**os.environ, "TIDEWIRE_WRITE_KEYS": WRITE_KEY},
            )  # fmt: skip
        self._said = said

    @property
    def is_sending(self) -> bool:
        return self._process.poll() is None

    def done(self) -> None:
        assert self._process.wait(300) == 0, self._said.read_text()


@pytest.mark.slow
def test_tidewire_up_killed_at_random_moments_loses_nothing_and_doubles_nothing(tmp_path: Path, history):
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    undisturbed = counts_of("--data", str(tmp_path / "calm"), "--port", "0", *history)
    up = Process("up", data=tmp_path / "killed", port=free_port())
    up.start()
    up.ready()

    client = Client(up.url, tmp_path / "client.log", *history)
    kills = 0
    while kills < KILLS:
        time.sleep(rng.uniform(0.1, 2.0))
        up.kill()
        kills += 1
        up.start()
        up.ready()
        if not client.is_sending:
            client.done()
            client = Client(up.url, tmp_path / "client.log", *history)  # all of it again, more duplicates
    client.done()

    disturbed = counts_of("--data", str(up.data), *history)
    assert up.stop() == 0, up.told()
    assert disturbed == undisturbed
    assert people_of(tmp_path / "killed") == people_of(tmp_path / "calm")


@pytest.mark.slow
def test_state_that_was_lost_is_made_again_from_the_changelog(tmp_path: Path, history):
    up = Process("up", data=tmp_path / "data", port=free_port())
    up.start()
    up.ready()
    before = counts_of("--data", str(up.data), *history)
    assert up.stop() == 0, up.told()
    known = people_of(up.data)

    shutil.rmtree(up.data / "customers")
    up.start()
    up.ready()
    after = counts_of("--data", str(up.data), *history)
    assert up.stop() == 0, up.told()

    assert after == before
    assert people_of(up.data) == known


@pytest.mark.slow
def test_a_second_process_on_the_same_folder_is_refused_in_one_line(tmp_path: Path):
    up = Process("up", data=tmp_path / "data", port=free_port())
    up.start()
    up.ready()

    second = subprocess.run(
        [*COMMAND, "up", "--data", str(up.data), "--port", "0"], capture_output=True, text=True
    )

    assert up.stop() == 0, up.told()
    assert second.returncode == 3
    (line,) = second.stderr.splitlines()
    assert "is open in process" in line
