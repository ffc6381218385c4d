"""Whether what failed lets go of what it was given."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from schemas.errors import TidewireError
from streams.log import Outgoing


class Records(list[Outgoing]):
    """Records that can be seen to be gone."""


async def is_freed_at_once(append: Callable[[Records], Awaitable[Any]], records: Records) -> bool:
    """Whether the records of an append that failed are gone without looking for garbage. Takes the only reference."""
    seen = weakref.ref(records)
    gc.disable()
    try:
        with suppress(TidewireError):
            await append(records)
            pytest.fail("the append was to fail")
        del records
        for _ in range(100):  # until what was under way with it has ended as well
            if seen() is None:
                break
            await asyncio.sleep(0.01)
        return seen() is None
    finally:
        gc.enable()
