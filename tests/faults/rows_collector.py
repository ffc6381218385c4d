"""Rows 1 and 2: collectors die, and are replaced one after another."""

from __future__ import annotations

import time

from tests.faults.rows import Outcome, Scene, row

DRAINS_WITHIN_S = 10.0
NOTICEABLE_S = 1.0  # clients send every few dozen milliseconds: a second without an answer is an interruption


@row("1", "collector kill -9 under load", limit_s=5, alone=True)
def collector_killed(scene: Scene) -> Outcome:
    """The only collector is killed at random moments and started again at once. Requests under way may have been
    stored or not; clients send them again, so they are there once."""
    (collector,) = scene.begin(workers=1).collectors
    with scene.traffic(rate=500, clients=4):
        for _ in range(scene.size(3, 20)):
            time.sleep(scene.rng.uniform(0.3, 3.0))
            collector.kill()
            collector.start()
            scene.fault_over()
            collector.ready()
    return scene.outcome(scene.settle(), *_not_all_taken(scene), _nobody_noticed(scene))


@row("2", "collectors restarted in turn", limit_s=0, alone=True)
def collectors_replaced(scene: Scene) -> Outcome:
    """Two collectors behind clients that go to the other one when a request fails: one retry is enough for each, and
    there is no second in which nothing is taken. Recovery is what such seconds come to."""
    collectors = scene.begin(collectors=2, workers=1).collectors
    wrong = []
    with scene.traffic(rate=500, clients=4) as traffic:
        traffic.wait_for(500)
        began = time.monotonic()
        for _ in range(scene.size(1, 6)):
            for collector in collectors:
                asked = time.monotonic()
                code = collector.stop()
                drained_s = time.monotonic() - asked
                if code != 0 or drained_s > DRAINS_WITHIN_S:
                    wrong.append(f"{collector.data.name} took {drained_s:.1f} s to stop, with {code}")
                collector.start()
                collector.ready()
        ended = time.monotonic()
    scene.settle()
    silence_s = scene.ledger.longest_silence_s(began, ended)
    if scene.ledger.most_tries > 2:
        wrong.append(f"a request needed {scene.ledger.most_tries} tries: {dict(scene.ledger.answers)}")
    return scene.outcome(silence_s if silence_s > NOTICEABLE_S else 0.0, *wrong, *_not_all_taken(scene))


def _not_all_taken(scene: Scene) -> list[str]:
    count = len(scene.ledger.open)
    return [f"{count} events were never taken: {dict(scene.ledger.answers)}"] if count else []


def _nobody_noticed(scene: Scene) -> str:
    return "" if scene.ledger.most_tries > 1 else "the fault did not happen: no request had to be tried again"
