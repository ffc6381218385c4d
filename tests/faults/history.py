"""A purchase history in CDNOW's format, made up: the same seed, the same history."""

from __future__ import annotations

import random
from pathlib import Path


def write_history(file: Path, orders: int, customers: int, seed: int = 1) -> None:
    """`customer date cds dollars` a line, in no order of time but by customer, as CDNOW's file."""
    rng = random.Random(seed)
    lines = []
    for i in range(orders):
        customer = i if i < customers else rng.randrange(customers)
        day = 19970101 + rng.randrange(28) + 100 * rng.randrange(12)
        lines.append((customer + 1, day, rng.randrange(1, 9), rng.randrange(100, 20_000)))
    lines.sort()
    file.write_text("".join(f" {c:05d} {day} {cds:2d} {cents / 100:6.2f}\n" for c, day, cds, cents in lines))
