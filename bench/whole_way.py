"""Events a second of the whole way, from HTTP batches to rows that can be read in ClickHouse.

    python -m bench.whole_way [embedded|kafka] [--json]

Replays CDNOW's 93,229 calls into a new folder with `tidewire demo --once`, client and server on the same machine. On
`kafka` the roles are processes of their own (collector, two workers, sink) beside a broker and chDB behind ClickHouse's
HTTP interface, all on this machine. Prints wall time, and the CPU time of Tidewire's processes where it can be known.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.faults.machine import tidewire


def embedded(folder: Path) -> dict[str, Any]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    counts = json.loads(tidewire("demo", "--once", "--json", "--data", str(folder / "data"), "--port", "0"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"ground": "embedded", **counts, "cpu_seconds": round(cpu_s, 1),
            "peak_mb": round(after.ru_maxrss / 1024)}  # fmt: skip


def kafka(folder: Path) -> dict[str, Any]:
    from tests.faults.cluster import Cluster
    from tests.kafka_broker import Kafka

    with closing(Cluster(folder, Kafka(), {})) as cluster:
        for role in ("sink", "collector", "worker", "worker"):
            cluster.role(role)
        counts = json.loads(tidewire("demo", "--once", "--json", "--url", cluster.urls[0],
                                     settings=cluster.settings))  # fmt: skip
    return {"ground": "kafka", **counts}


def main() -> None:
    grounds = [name for name in sys.argv[1:] if name in ("embedded", "kafka")] or ["embedded", "kafka"]
    for ground in grounds:
        with tempfile.TemporaryDirectory() as folder:
            result = {"embedded": embedded, "kafka": kafka}[ground](Path(folder))
        result["events_per_second"] = round(result["events"] / result["seconds"])
        result["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        if "--json" in sys.argv:
            print(json.dumps(result), flush=True)
        else:
            print("  ".join(f"{name} {value}" for name, value in result.items()), flush=True)


if __name__ == "__main__":
    main()
