"""Conditions as queries over a ClickHouse that is at rest: a preview with its sample, and the comparison of a proof."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench import shop
from processors.values import zone_named
from schemas.conditions import read_condition
from schemas.times import to_ms
from sinks.analytics import Analytics
from sinks.conditions import compared_sql, listed_sql, people_sql, preview_sql

WORKSPACE, SAMPLE = "default", 20
BOUGHT = {"did": "Order Completed", "at_least": 1, "within": "90 days"}
COFFEE = {"did": "Product Viewed", "where": {"category": "Coffee"}, "at_least": 3, "within": "30 days"}
NO_MAIL = {"not": {"did": "Email Opened", "within": "30 days"}}
CONDITIONS: dict[str, Any] = {
    "1 leaf": {"did": "Order Completed", "at_least": 2, "within": "90 days"},
    "5 leaves": {"all": [BOUGHT, COFFEE, NO_MAIL,
                         {"trait": "address.country", "is": "US"}, {"context": "device.type", "is": "mobile"}]},
    "5 leaves, amounts": {"all": [BOUGHT, COFFEE, NO_MAIL, {"not": {"did": "Ticket Created", "within": "30 days"}},
                                  {"did": "Order Completed", "total": {"of": "total", "at_least": 100}}]},
    "absence": {"not": {"did": "Order Completed"}},
    "sequence": {"sequence": [{"did": "Product Added"},
                              {"did": "Checkout Started", "within": "2 hours", "without": {"did": "Order Completed"}}],
                 "within": "30 days"},
    "attributes": {"all": [{"attribute": "orders.orders", "at_least": 2},
                           {"attribute": "visits.last_at", "longer_ago": "14 days"}]},
    "context anywhere": {"context": "os.name", "is": "iOS"},
}  # fmt: skip


class Job(msgspec.Struct, frozen=True):
    """Which ClickHouse to ask, and how often."""

    folder: str
    runs: int


async def contend(given: Job) -> dict[str, Any]:
    analytics = Analytics(f"chdb:{Path(given.folder)}")
    end_ms = to_ms(datetime(shop.END.year, shop.END.month, shop.END.day, tzinfo=UTC))
    found: dict[str, Any] = {}
    ((size),) = await analytics.query("SELECT count() AS events, uniq(key) AS keys FROM events FINAL")
    for _ in range(given.runs + 1):  # the first time nothing is in the caches, and it is left out
        for name, condition in CONDITIONS.items():
            people = people_sql(read_condition(condition), {}, workspace=WORKSPACE, now_ms=end_ms,
                                zone=zone_named("UTC"))  # fmt: skip
            began, cpu_began = time.perf_counter(), time.process_time()
            (row,) = await analytics.query(*preview_sql(people, most=SAMPLE))
            await analytics.query(*listed_sql(row["sample"], workspace=WORKSPACE))
            took, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
            began = time.perf_counter()
            await analytics.query(*compared_sql(people, workspace=WORKSPACE, name="none"))
            said = found.setdefault(name, {"people": row["people"], "preview_s": [], "cpu_s": [], "compared_s": []})
            said["preview_s"].append(took)
            said["cpu_s"].append(cpu_s)
            said["compared_s"].append(time.perf_counter() - began)
    await analytics.close()
    for said in found.values():
        for name in ("preview_s", "cpu_s", "compared_s"):
            said[name] = said[name][1:]
    return {**size, "conditions": found}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(contend(msgspec.json.decode(sys.argv[1], type=Job)))), flush=True)
