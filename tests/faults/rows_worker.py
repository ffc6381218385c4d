"""Rows 3 to 8: workers die, stand still, come and go, and lose their disk."""

from __future__ import annotations

import time

from tests.faults.rows import Outcome, Scene, row


@row("3", "worker kill -9", limit_s=20, short=True)
def workers_killed(scene: Scene) -> Outcome:
    """Workers are killed in turn under load; the other takes over, or the same one comes back first."""
    workers = scene.cluster.workers
    with scene.traffic(rate=400):
        for kill in range(scene.size(3, 10)):
            time.sleep(scene.rng.uniform(3, 10))
            worker = workers[kill % len(workers)]
            worker.kill()
            worker.start()
            worker.ready()
        scene.fault_over()
    return scene.outcome(scene.settle())
