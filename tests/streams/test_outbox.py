"""What waits to leave: of each row the newest, whatever comes first."""

from __future__ import annotations

import json

import msgspec
import pytest

from processors.base import Table
from schemas.effects import Row
from streams.outbox import Outbox


class Visit(msgspec.Struct):
    number: int
    pages: int


VISITS = Table("visits", Visit, ("number",), "Visits.")


@pytest.mark.parametrize("versions", [(1, 2), (2, 1)])
def test_of_the_rows_of_a_key_the_newest_leaves_whichever_comes_last(versions):
    out = Outbox({Visit: VISITS})

    for version in versions:
        out.row("shop/u:ann", version, Row(Visit(number=1, pages=version)))
        out.row("shop/u:ann", version, Row(Visit(number=10 + version, pages=version)))

    left = [json.loads(outgoing.value) for outgoing in out.take_rows()]
    assert {(row["values"]["number"], row["version"]) for row in left} == {(1, 2), (11, 1), (12, 2)}
    assert len(left) == 3


def test_a_row_that_is_gone_since_stays_gone():
    out = Outbox({Visit: VISITS})

    out.row("shop/u:ann", 12, Row(Visit(number=1, pages=0), is_deleted=True))
    out.row("shop/u:ann", 8, Row(Visit(number=1, pages=1)))

    (row,) = (json.loads(outgoing.value) for outgoing in out.take_rows())
    assert (row["version"], row["is_deleted"]) == (12, True)
