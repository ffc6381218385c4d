"""A program refuses states that are newer than it is, before it touches any."""

from __future__ import annotations

import msgspec
import pytest

from processors.fold import Fold
from schemas.customer import Customer, Part
from schemas.errors import TidewireError
from schemas.keyed import encode_state
from streams.embedded import EmbeddedLog
from streams.lines import CUSTOMERS
from streams.log import Outgoing
from streams.states import TOPIC_ID
from streams.versions import NEWEST, refuse_newer_states
from tests.streams.world import TallyProcessor


class NewerTally(TallyProcessor):
    version = 2


def state_of(version: int) -> bytes:
    section = msgspec.Raw(msgspec.msgpack.encode([{}]))
    return encode_state(Customer(parts={"w/u:ann": Part(sections={f"tally:{version}": section})}))


@pytest.fixture
async def log(tmp_path):
    log = EmbeddedLog(tmp_path / "log.db", fsync=False)
    await log.start()
    await log.create_topic(CUSTOMERS.changelog, 2, None, 1)
    await log.append(CUSTOMERS.changelog, [Outgoing(TOPIC_ID, b"id", partition) for partition in range(2)])
    yield log
    await log.stop()


async def test_states_of_its_own_version_of_older_ones_and_of_processors_that_are_gone_are_read(log):
    await log.append(CUSTOMERS.changelog, [Outgoing(b"w/u:ann", state_of(1), 0), Outgoing(b"w/u:ben", None, 1)])

    await refuse_newer_states(log, Fold([TallyProcessor()]))
    await refuse_newer_states(log, Fold([NewerTally()]))
    await refuse_newer_states(log, Fold([]))


async def test_states_of_a_newer_version_are_refused_with_the_mend(log):
    await log.append(CUSTOMERS.changelog, [Outgoing(b"w/u:%d" % n, state_of(1), 1) for n in range(2 * NEWEST)])
    await log.append(CUSTOMERS.changelog, [Outgoing(b"w/u:ann", state_of(2), 1)])

    with pytest.raises(TidewireError, match=r"tally in version 2, this program knows version 1"):
        await refuse_newer_states(log, Fold([TallyProcessor()]))
    await refuse_newer_states(log, Fold([NewerTally()]))
