"""A program that is older than the states it finds refuses to start, before it joins a group and takes partitions.

It looks at the newest states of each partition. The newer program was the last to write, so they show it; should all of
them lack the processor in question, the first state that has it still stops the worker (`processors.fold`).
"""

from __future__ import annotations

from collections.abc import Mapping

from processors.fold import Fold
from schemas.customer import decode_customer
from schemas.errors import TidewireError
from streams.lines import CUSTOMERS
from streams.log import TP, Log

NEWEST = 500  # states of each partition


async def refuse_newer_states(log_: Log, fold: Fold) -> None:
    """Look whether this program can read what stands in the changelog.

    Raises:
        TidewireError: a processor's state is of a version that it does not know yet.
    """
    known = {processor.name: processor.version for processor in fold.processors}
    for partition, (first, end) in (await log_.bounds(CUSTOMERS.changelog)).items():
        for record in await log_.read(TP(CUSTOMERS.changelog, partition), max(first, end - NEWEST), NEWEST):
            if record.key and record.key[0] and record.value:
                _refuse_newer(record.value, known)


def _refuse_newer(value: bytes, known: Mapping[str, int]) -> None:
    for part in decode_customer(value).parts.values():
        for section in part.sections:
            name, _, version = section.rpartition(":")
            if int(version) > known.get(name, int(version)):
                raise TidewireError(
                    f"topic {CUSTOMERS.changelog!r} holds states of processor {name} in version {version}, this "
                    f"program knows version {known[name]}: start the newer program again, or replay from the beginning."
                )
