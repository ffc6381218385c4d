"""The sink's process is killed again and again; at the end every event is there, once."""

import asyncio
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from sinks.analytics import Analytics
from sinks.clickhouse import behind
from tests.sinks.feed import embedded_log, event_json, put

EVENTS = 6_000
SINK = """
import asyncio, sys
from pathlib import Path
import msgspec
from sinks.analytics import Analytics
from sinks.clickhouse import ClickHouseSink, behind
from tests.sinks.feed import embedded_log

class Settings(msgspec.Struct):
    sink_batch: int = 150
    sink_wait_ms: int = 20

async def main() -> None:
    folder = Path(sys.argv[1])
    async with embedded_log(folder) as log:
        analytics = Analytics(f"chdb:{folder / 'clickhouse'}")
        sink = ClickHouseSink(log, analytics, (), Settings())
        task = asyncio.create_task(sink.run())
        while waiting := await behind(log):
            print(waiting, flush=True)
            await asyncio.sleep(0.01)
        await sink.stop()
        await task
        await analytics.close()
    print(0, flush=True)

asyncio.run(main())
"""


async def test_kill_9_at_random_moments_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    dice = random.Random(11)
    async with embedded_log(tmp_path) as log:
        await put(log, "events", [event_json(n) for n in range(EVENTS)])

    kills = await asyncio.to_thread(_run_and_kill, tmp_path, dice)

    analytics = Analytics(f"chdb:{tmp_path / 'clickhouse'}")
    rows = await analytics.query(
        "SELECT count() AS events, uniqExact(message_id) AS ids, sum(revenue) AS revenue FROM event_log"
    )
    await analytics.close()
    async with embedded_log(tmp_path) as log:
        assert await behind(log) == 0
    revenue = sum((Decimal(n % 50) + Decimal("0.25") for n in range(EVENTS)), Decimal(0))
    assert rows == [{"events": EVENTS, "ids": EVENTS, "revenue": revenue}]
    assert kills >= 4


def _run_and_kill(folder: Path, dice: random.Random) -> int:
    """Run the sink until it has caught up, killing it each time when it has stored some more."""
    kills = 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", SINK, str(folder)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        waiting: list[int] = []
        enough = dice.randint(1, 1_200)
        for line in process.stdout:
            if line.strip().isdigit():
                waiting.append(int(line))
                if waiting[-1] == 0 or (kills < 5 and waiting[0] - waiting[-1] >= enough):
                    break
        is_done = bool(waiting) and waiting[-1] == 0
        process.kill()
        process.wait()
        process.stdout.close()
        if is_done:
            return kills
        kills += 1
        assert kills < 20, f"it does not get on: {waiting[-5:]}"
