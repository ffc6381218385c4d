"""RFM groups of real customers, beside a plain pandas computation over the same file.

The invoices of *Online Retail* (UCI Machine Learning Repository no. 352, D. Chen 2015, CC BY 4.0) are sent as orders to
a `tidewire up` of their own, whole way; when everybody is scored, each person's group is compared. No measure of speed.
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.measure import Figure, Options, Report
from processors.rfm import GROUPS
from tests.cli.command import tidewire
from tests.faults.cluster import Cluster
from tests.faults.machine import WRITE_KEY

if TYPE_CHECKING:
    import pandas

FILE = "online_retail.csv.gz"
QUICK_CUSTOMERS = 60
SCORED_WITHIN_S = 300.0
LOOK_EVERY_S = 5.0


def measure(options: Options) -> Report:
    assert options.data is not None
    invoices = read_invoices(options.data / FILE)
    if options.is_quick:
        invoices = invoices[invoices.customer.isin(invoices.customer.unique()[:QUICK_CUSTOMERS])]
    wanted = groups_of(invoices)
    live = run(invoices, wanted)
    different = {person: (live.get(person), group) for person, group in wanted.items() if live.get(person) != group}
    sizes: dict[str, int] = {}
    for group in live.values():
        sizes[group] = sizes.get(group, 0) + 1
    figures = [Figure("customers", "people", [len(live)], at_least=len(wanted)),
               Figure("groups as pandas has them", "people", [len(wanted) - len(different)],
                      at_least=len(wanted))]  # fmt: skip
    return Report(input={"file": FILE, "invoices": len(invoices), "customers": len(wanted)}, figures=figures,
                  found={"groups": dict(sorted(sizes.items())), "first": list(different.items())[:20]})  # fmt: skip


def read_invoices(file: Path) -> pandas.DataFrame:
    """One row an invoice: `invoice`, `customer`, `at`, `total` in pounds. Purchases only."""
    import pandas

    lines = pandas.read_csv(file, dtype={"InvoiceNo": str, "CustomerID": str, "StockCode": str})
    lines = lines[~lines.InvoiceNo.str.startswith(("C", "A")) & (lines.UnitPrice > 0) & lines.CustomerID.notna()]
    lines = lines.assign(total=lines.Quantity * lines.UnitPrice, at=pandas.to_datetime(lines.InvoiceDate, utc=True))
    of_invoice = {"customer": ("CustomerID", "first"), "at": ("at", "min"), "total": ("total", "sum")}
    found = lines.groupby("InvoiceNo").agg(**of_invoice)
    return found.round({"total": 2}).reset_index(names="invoice").sort_values("at")


def groups_of(invoices: pandas.DataFrame) -> dict[str, str]:
    """The RFM group of each customer, in plain pandas."""
    of_customer = {"last": ("at", "max"), "orders": ("invoice", "count"), "revenue": ("total", "sum")}
    people = invoices.groupby("customer").agg(**of_customer)
    people["revenue"] = people.revenue.round(2)
    scores = {}
    for name in people:
        ordered = people[name].sort_values().reset_index(drop=True)
        cuts = [ordered[-(-len(ordered) * fifth // 5) - 1] for fifth in (1, 2, 3, 4)]
        scores[name] = 1 + sum((people[name] > cut).astype(int) for cut in cuts)
    value = (scores["orders"] + scores["revenue"] + 1) // 2
    return {customer: GROUPS[int(scores["last"][customer])][int(value[customer]) - 1] for customer in people.index}


def run(invoices: pandas.DataFrame, wanted: dict[str, str]) -> dict[str, str]:
    """The groups as Tidewire has them: looked at until they are those wanted, or it takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "orders.jsonl"
        file.write_text("".join(json.dumps(_call(row)) + "\n" for row in invoices.itertuples()), encoding="utf-8")
        with closing(Cluster(Path(folder) / "cluster", None, {"TIDEWIRE_RFM_MINUTES": "1"})) as cluster:
            cluster.role("up")
            done = tidewire("send", file, "--url", cluster.urls[0], "--write-key", WRITE_KEY, timeout_s=600)
            if done.code:
                raise RuntimeError(done.err)
            until_s = time.monotonic() + SCORED_WITHIN_S
            while (found := _groups(cluster)) != wanted and time.monotonic() < until_s:
                time.sleep(LOOK_EVERY_S)
            return found


def _call(row: Any) -> dict[str, Any]:
    return {
        "type": "track", "event": "Order Completed", "userId": row.customer, "messageId": row.invoice,
        "timestamp": row.at.isoformat(),
        "properties": {"order_id": row.invoice, "total": row.total, "currency": "GBP"},
    }  # fmt: skip


def _groups(cluster: Cluster) -> dict[str, str]:
    done = tidewire("sql", "SELECT user_id, JSONExtractString(sections, 'rfm', 'group') AS g FROM person_list "
                    "WHERE g != ''", "--json", "--data", cluster.folder / "up-1")  # fmt: skip
    return {row["user_id"]: row["g"] for row in done.rows}
