"""Variants of rows 3, 4 and 8 in which the moment is not a matter of luck: a process dies or stops exactly where one
guard alone keeps the promise. See tests/faults/test_guards.py, which takes the guards away."""

from __future__ import annotations

import signal
from pathlib import Path

from streams.log import Log
from tests.faults.cluster import wait_for
from tests.faults.machine import Process
from tests.faults.rows import Outcome, Scene, row
from tests.faults.without import STEPS, Moment

DIES_WITHIN_S = 30.0
TAKES_OVER_WITHIN_S = 30.0
WAKES_WITHIN_S = 20.0
FEW_MS = "100"  # between checkpoints, so that there are many
TELLING = {"flush": ("sent",), "outputs_first": ("in the changelog", "on disk", "marked")}
"""Where a guard is taken away, the steps at which it alone keeps the promise: the others would tell nothing."""


@row("3", "killed after each step of a checkpoint", limit_s=20, ground="embedded", short=True)
def killed_at_each_step(scene: Scene) -> Outcome:
    """The process dies after each of the steps in turn, at some checkpoint, and is started again."""
    up = scene.begin(moments=True, settings={"TIDEWIRE_CHECKPOINT_MS": FEW_MS}).up
    wrong = []
    steps = TELLING.get(scene.without, STEPS)
    with scene.traffic(rate=scene.size(400, 600), batch=10):
        up.kill()  # it may have its checkpoints before it is ready, and is not waited for from now on
        for step in steps * scene.size(1, 5):
            Moment(step, scene.rng.randrange(2, 8)).write(scene.moment_file)
            up.start()
            wait_for(lambda: not up.is_running, DIES_WITHIN_S, "it did not die at its moment", up.told)
            if up.exit_code != -signal.SIGKILL:
                wrong.append(f"it ended with {up.exit_code} before its moment: {up.told()[-500:]}")
        up.start()
        scene.fault_over()
        up.ready()
    return scene.outcome(scene.settle(), *wrong)


@row("4", "worker stops as it writes to the changelog", limit_s=20)
def stopped_before_the_changelog(scene: Scene) -> Outcome:
    """A worker stands still between its last look at its lease and the write to the changelog. When it wakes, another
    owns its partitions and has gone on: its states come late, behind newer ones, and must count for nothing."""
    cluster = scene.begin(workers=0, moments=True)
    Moment("sent", scene.rng.randrange(3, 8), "stop").write(scene.moment_file)
    zombie, other = cluster.role("worker"), cluster.role("worker")
    cluster.wait_until_owned()
    with scene.traffic(rate=scene.size(200, 600), batch=20) as traffic:
        wait_for(lambda: _is_stopped(zombie), DIES_WITHIN_S, f"{zombie.data.name} did not stop", zombie.told)
        wait_for(lambda: other.metric("tidewire_stage_owned_partitions") == cluster.partitions, TAKES_OVER_WITHIN_S,
                 f"{other.data.name} did not take over", other.told)  # fmt: skip
        traffic.wait_for(scene.size(600, 2_000))  # some of them of the people whose states come late
    scene.settle()
    before = cluster.ask_log(_changelog_end)
    zombie.thaw()
    scene.fault_over()
    wait_for(lambda: not zombie.is_running or cluster.ask_log(_changelog_end) > before, WAKES_WITHIN_S,
             f"{zombie.data.name} neither ends nor goes on", zombie.told)  # fmt: skip
    return scene.outcome(scene.settle())


async def _changelog_end(log: Log) -> int:
    return sum(end for _, end in (await log.bounds("customers")).values())


def _is_stopped(process: Process) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
