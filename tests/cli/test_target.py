"""Waiting until all is through: as long as something moves, and no longer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from schemas.errors import Unreachable
from streams.lag import Lag
from streams.target import wait_until_through


class Slow:
    """A target that is as far behind as it is told; at the end it stays where it is."""

    url, write_key, is_own = "http://127.0.0.1:9", "key", False

    def __init__(self, lags: Iterable[Lag]) -> None:
        self._lags: Iterator[Lag] = iter(lags)
        self._now = Lag(0, 0)

    async def behind(self) -> Lag:
        self._now = next(self._lags, self._now)
        return self._now

    async def query(self, sql: str) -> list[dict[str, Any]]:
        return []

    async def stay(self) -> None:
        return


async def test_it_returns_when_nothing_is_left():
    await wait_until_through(Slow([Lag(2, 5), Lag(0, 3), Lag(0, 0)]), patience_s=5)


async def test_as_long_as_something_moves_it_waits():
    await wait_until_through(Slow([Lag(0, left) for left in range(12, -1, -1)]), patience_s=0.15)


@pytest.mark.parametrize(("left", "who"), [(Lag(7, 7), "worker"), (Lag(0, 7), "sink")])
async def test_when_nothing_moves_it_says_who_is_missing(left, who):
    with pytest.raises(Unreachable, match=rf"^7 records .* nothing has moved for 0 s\. Does a {who} run\?"):
        await wait_until_through(Slow([left]), patience_s=0.3)
