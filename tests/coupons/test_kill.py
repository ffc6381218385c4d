"""The stage of coupons is killed again and again; at the end everybody has one code, and no code is there twice."""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from config.settings import Settings
from schemas.coupons import Campaign, CouponRecord, Define, Give, Redeem, Stock, encode_of_coupons
from schemas.times import DAY_MS
from streams.embedded import EmbeddedLog
from streams.lines import COUPONS
from streams.log import TP, Log, Outgoing
from streams.topics import create_topics

PEOPLE, BUDGET, POOL = 1_000, 600, 200
TOLD = re.compile(r"(\d+) (\d+)\n")
STAGE = """
import asyncio, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from config.settings import Settings
from streams.app import StageApp
from streams.coupons import CouponStage
from streams.embedded import EmbeddedLog
from streams.lag import measure_groups
from streams.lines import COUPONS
from streams.metrics import StageMetrics, of_coupons

async def main() -> None:
    folder = Path(sys.argv[1])
    settings = Settings(data=folder, partitions=2, checkpoint_ms=20)
    log = EmbeddedLog(folder / "log.db", fsync=False)
    await log.start()
    stage = StageApp(log, CouponStage(), settings, StageMetrics(CollectorRegistry(), of=of_coupons))
    await stage.start()
    while behind := (await measure_groups(log))[COUPONS.group].behind:
        print(behind, sum(end for _, end in (await log.bounds("events")).values()), flush=True)
        await asyncio.sleep(0.005)
    print(0, 0, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def records() -> list[CouponRecord]:
    spring = Campaign(name="spring", prefix="SPRING", length=10, worth=100_000, unit="EUR", most_worth=BUDGET * 100_000,
                      expires="30 days after given", expires_after_ms=30 * DAY_MS)  # fmt: skip
    pool = Campaign(name="pool", pool="digest", worth=150_000, unit="percent", expires="1 day", expires_after_ms=DAY_MS)
    made: list[CouponRecord] = [
        Define(workspace="w", campaign=spring, seed=bytes(range(32))), Define(workspace="w", campaign=pool),
        Stock(workspace="w", campaign="pool", codes=[f"POOL-{number}" for number in range(POOL)]),
    ]  # fmt: skip
    for number in range(PEOPLE):
        for name in ("spring", "pool"):
            asked = Give(workspace="w", campaign=name, person=f"w/u:{number}", request=f"r{number}", cause="test")
            made += [asked] if number % 3 else [asked, asked]
        if number < POOL:
            made.append(Redeem(workspace="w", code=f"POOL-{number}", person=f"w/u:{number}", event=f"e{number}",
                               at_ms=1))  # fmt: skip
    return made


async def open_log(folder: Path) -> EmbeddedLog:
    log = EmbeddedLog(folder / "log.db", fsync=False)
    await log.start()
    return log


async def test_kill_9_at_random_moments_gives_no_code_twice_and_spends_no_budget_twice(tmp_path: Path) -> None:
    log = await open_log(tmp_path)
    await create_topics(log, Settings(data=tmp_path, partitions=2))
    await log.append(COUPONS.topic, [Outgoing(b"w", encode_of_coupons(record)) for record in records()])
    await log.stop()

    kills = await asyncio.to_thread(run_and_kill, tmp_path, random.Random(5))

    log = await open_log(tmp_path)
    events = await all_of(log, "events")
    rows = [row for row in await all_of(log, "rows") if row["table"] == "coupon_campaigns"]
    await log.stop()
    by_id: dict[str, Any] = {}
    for event in events:
        assert by_id.setdefault(event["messageId"], event) == event
    told = Counter((event["event"], event["properties"]["campaign"]) for event in by_id.values())
    given = [event for event in by_id.values() if event["event"] == "Coupon Given"]
    assert told == {("Coupon Given", "spring"): BUDGET, ("Coupon Refused", "spring"): PEOPLE - BUDGET,
                    ("Coupon Given", "pool"): POOL, ("Coupon Refused", "pool"): PEOPLE - POOL,
                    ("Coupon Used", "pool"): POOL}  # fmt: skip
    assert len({event["properties"]["code"] for event in given}) == len(given)
    assert len({(event["userId"], event["properties"]["campaign"]) for event in given}) == len(given)
    newest = {row["values"]["campaign"]: row["values"] for row in sorted(rows, key=lambda row: row["version"])}
    counted = {name: (row["given"], row["used"], row["codes_left"]) for name, row in newest.items()}
    assert counted == {"spring": (BUDGET, 0, 0), "pool": (POOL, POOL, 0)}
    assert kills >= 2 and len(events) > len(by_id)  # what was told and not committed was told again


async def all_of(log: Log, topic: str) -> list[Any]:
    found = []
    for partition, (at, end) in (await log.bounds(topic)).items():
        while at < end:
            read = await log.read(TP(topic, partition), at, 5_000)
            found += [json.loads(record.value or b"null") for record in read]
            at = read[-1].offset + 1
    return found


def run_and_kill(folder: Path, dice: random.Random) -> int:
    """Run the stage until it has caught up, killing it three times when it has told some more. Returns how often."""
    kills = events = 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", STAGE, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        behind, enough = 1, events + dice.randint(1, 400)
        for line in process.stdout:
            if told := TOLD.fullmatch(line):  # the others are lines of its log
                behind, events = int(told[1]), int(told[2])
                if behind == 0 or (kills < 3 and events >= enough):
                    break
        process.kill()
        process.wait()
        process.stdout.close()
        if behind == 0:
            return kills
        kills += 1
        assert kills < 10, f"it does not get on: {behind} records wait"
