"""What only the Kafka log has to bear: brokers that die or stand still, refusals, other people's transactions."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.cluster import ClusterMetadata
from kafka.admin import KafkaAdminClient

from schemas.errors import ConfigError, TidewireError, Unreachable
from streams import kafka_append
from streams.kafka import KafkaLog
from streams.kafka_address import parse_address
from streams.log import TP, LogBusy, LogUnavailable, Outgoing
from tests.freed import Records, is_freed_at_once
from tests.kafka_broker import Kafka, free_ports

DAY_MS = 86_400_000


@pytest.fixture
async def log(kafka: str) -> AsyncIterator[KafkaLog]:
    made = KafkaLog(kafka)
    await made.start()
    yield made
    await made.stop()


async def new_topic(log: KafkaLog, partitions: int = 1, retention_ms: int | None = DAY_MS) -> str:
    name = f"topic-{uuid.uuid4().hex}"
    await log.create_topic(name, partitions, retention_ms, 1)
    return name


def bootstrap(log: KafkaLog) -> str:
    return ",".join(log.address.brokers)


# --- the way in


async def test_a_broker_that_is_not_there_is_one_clear_line() -> None:
    (port,) = free_ports(1)
    log = KafkaLog(f"kafka://127.0.0.1:{port}")
    began = time.monotonic()

    with pytest.raises(Unreachable) as caught:
        await log.start()

    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 12
    await log.stop()


async def test_a_broker_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        log = KafkaLog(f"kafka://127.0.0.1:{silent.getsockname()[1]}", timeout_s=1)
        began = time.monotonic()

        with pytest.raises(Unreachable, match="no Kafka broker answered"):
            await log.start()

    assert time.monotonic() - began < 5


def test_a_url_names_brokers_and_needs_no_more() -> None:
    address = parse_address("kafka://one:9092,two,[::1]:9094")

    assert address.brokers == ["one:9092", "two:9092", "[::1]:9094"]
    assert address.client == {"security_protocol": "PLAINTEXT"}


def test_a_user_comes_in_encrypted_by_default() -> None:
    address = parse_address("kafka://tide%40wire@broker:9093", "canary-secret")

    context = address.client.pop("ssl_context")
    assert address.client == {
        "security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "tide@wire", "sasl_plain_password": "canary-secret",
    }  # fmt: skip
    assert context.check_hostname
    assert "canary-secret" not in f"{address!r} {address}"


@pytest.mark.parametrize(
    ("url", "password", "said"),
    [
        ("mysql://host", "", "not a Kafka URL"),
        ("kafka://", "", "not an address of a broker"),
        ("kafka://host:port", "", "host:port is not an address"),
        ("kafka://host:70000", "", "not an address of a broker"),
        ("kafka://user:secret@host", "", "the URL holds a password"),
        ("kafka://user@host", "", "no password for user"),
        ("kafka://host?security=sasl_ssl", "p", "SASL needs a user"),
        ("kafka://user@host?security=ssl", "p", "names a user, but security is ssl"),
        ("kafka://user@broker.example?security=sasl_plaintext", "p", "for all to read"),
        ("kafka://host?security=tls", "", "It is one of: plaintext"),
        ("kafka://user@host?mechanism=gssapi", "p", "It is one of: scram"),
        ("kafka://host?sekurity=ssl", "", "option sekurity is not known"),
        ("kafka://host?security=ssl&ca=/nowhere.pem", "", "certificates cannot be read"),
    ],
)
def test_a_wrong_url_is_refused_with_the_mend(url: str, password: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_address(url, password)

    assert "secret" not in str(caught.value)


def test_a_password_may_go_unencrypted_on_this_machine_only() -> None:
    for host in ("localhost:9092", "127.0.0.1:9092", "[::1]:9092"):
        assert parse_address(f"kafka://user@{host}?security=sasl_plaintext", "p").brokers == [host]
    with pytest.raises(ConfigError):
        parse_address("kafka://user@127.0.0.1:9092,10.0.0.5:9092?security=sasl_plaintext", "p")


# --- refusals


@pytest.mark.kafka
async def test_what_kafka_refuses_is_said_to_its_caller_alone(log: KafkaLog) -> None:
    """A compacted topic takes no record without a key; the records that stand in the same batch are stored."""
    topic = await new_topic(log, retention_ms=None)

    *stored, refused = await asyncio.gather(
        *(log.append(topic, [Outgoing(b"key", b"%d" % i)]) for i in range(10)),
        log.append(topic, [Outgoing(None, b"without a key")]),
        return_exceptions=True,
    )
    await log.append(topic, [Outgoing(b"key", b"after")])

    assert isinstance(refused, TidewireError)
    assert not isinstance(refused, LogBusy)
    assert not any(isinstance(one, BaseException) for one in stored)
    found = await log.read(TP(topic, 0), 0, 100)
    assert [record.value for record in found] == [*(b"%d" % i for i in range(10)), b"after"]


@pytest.mark.kafka
async def test_what_kafka_refused_holds_no_memory(log: KafkaLog) -> None:
    topic = await new_topic(log, retention_ms=None)

    assert await is_freed_at_once(lambda records: log.append(topic, records), Records([Outgoing(None, b"no key")]))


@pytest.mark.kafka
@pytest.mark.slow
async def test_what_waited_too_long_for_kafka_holds_no_memory(own_kafka: Kafka) -> None:
    log = KafkaLog(own_kafka.url, timeout_s=1)
    await log.start()
    topic = await new_topic(log)
    own_kafka.brokers[0].pause()
    first = asyncio.create_task(log.append(topic, [Outgoing(b"key", b"under way")]))
    await asyncio.sleep(0.1)

    assert await is_freed_at_once(lambda records: log.append(topic, records), Records([Outgoing(b"key", b"waits")]))

    own_kafka.brokers[0].resume()
    with suppress(LogUnavailable):
        await first
    await log.stop()


@pytest.mark.kafka
async def test_a_topic_is_there_once_it_is_made_whatever_a_broker_has_not_heard_of_yet(
    log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, name, is_behind = log._client.fetch_all_metadata, f"topic-{uuid.uuid4().hex}", iter([True, True, False, True])

    async def fetch_all_metadata() -> ClusterMetadata:
        return ClusterMetadata() if next(is_behind) else await ask()

    monkeypatch.setattr(log._client, "fetch_all_metadata", fetch_all_metadata)
    await log.create_topic(name, 2, DAY_MS)
    with pytest.raises(TidewireError, match="has no topic"):
        await log.append("another", [Outgoing(b"key", b"")])  # looks again, and is told of none

    assert log.partitions(name) == 2
    assert next(is_behind, None) is None


@pytest.mark.kafka
async def test_a_record_above_the_limit_of_somebody_elses_topic_is_refused(log: KafkaLog) -> None:
    topic = f"theirs-{uuid.uuid4().hex}"
    with KafkaAdminClient(bootstrap_servers=bootstrap(log)) as admin:
        admin.create_topics(
            {topic: {"num_partitions": 1, "replication_factor": 1, "configs": {"max.message.bytes": "5000"}}},
            wait_for_metadata=True,
        )

    refused, *stored = await asyncio.gather(
        log.append(topic, [Outgoing(b"key", bytes(6000))]),
        *(log.append(topic, [Outgoing(b"key", bytes(500))]) for _ in range(5)),
        return_exceptions=True,
    )

    assert isinstance(refused, TidewireError)
    assert topic in str(refused)
    assert not any(isinstance(one, BaseException) for one in stored)
    assert len(await log.read(TP(topic, 0), 0, 100)) == 5


@pytest.mark.kafka
async def test_more_copies_than_brokers_are_refused_with_the_mend(log: KafkaLog) -> None:
    with pytest.raises(TidewireError, match=r"too few brokers for 5 copies.*`replication`"):
        await log.create_topic(f"topic-{uuid.uuid4().hex}", 1, DAY_MS, 5)


@pytest.mark.kafka
async def test_aborted_transactions_of_others_are_not_read(log: KafkaLog) -> None:
    topic = await new_topic(log)
    theirs = AIOKafkaProducer(bootstrap_servers=bootstrap(log), transactional_id=f"id-{uuid.uuid4().hex}")
    await theirs.start()
    for turn in range(3):
        await theirs.begin_transaction()
        for i in range(5):
            await theirs.send_and_wait(topic, key=b"key", value=b"%d/%d" % (turn, i))
        await (theirs.abort_transaction() if turn == 1 else theirs.commit_transaction())
    await theirs.stop()
    expected = [b"%d/%d" % (turn, i) for turn in (0, 2) for i in range(5)]

    found, offset = [], 0
    while window := await log.read(TP(topic, 0), offset, 3):
        found += [record.value for record in window]
        offset = window[-1].offset + 1
    member = await log.subscribe(f"group-{topic}", [topic])
    polled = [record.value for records in (await member.poll(100, 5)).values() for record in records]
    await member.close()

    assert found == expected
    assert polled == expected


# --- brokers in trouble


@pytest.mark.kafka
@pytest.mark.slow
async def test_a_broker_that_stands_still_costs_no_record_and_stores_none_twice(own_kafka: Kafka) -> None:
    log = KafkaLog(own_kafka.url, timeout_s=2)
    await log.start()
    topic = await new_topic(log)
    await log.append(topic, [Outgoing(b"key", b"before")])

    own_kafka.brokers[0].pause()
    began = time.monotonic()
    with pytest.raises(LogUnavailable):
        await log.append(topic, [Outgoing(b"key", b"under way")])
    assert time.monotonic() - began < 4
    with pytest.raises(LogBusy) as caught:  # now it is known, and said at once
        await log.append(topic, [Outgoing(b"key", b"refused")])
    assert not isinstance(caught.value, LogUnavailable)
    with pytest.raises(LogUnavailable):
        await log.bounds(topic)
    own_kafka.brokers[0].resume()

    await eventually(log, topic, b"after")
    found = Counter(record.value for record in await log.read(TP(topic, 0), 0, 100))
    assert found == {b"before": 1, b"under way": 1, b"after": 1}
    await log.stop()


@pytest.mark.kafka
@pytest.mark.slow
async def test_appends_and_groups_outlive_the_death_of_the_broker(own_kafka: Kafka) -> None:
    log = KafkaLog(own_kafka.url)
    await log.start()
    topic = await new_topic(log)
    member = await log.subscribe(f"group-{topic}", [topic])
    await log.append(topic, [Outgoing(b"key", b"before")])
    assert await member.poll(10, 10)
    await member.commit({TP(topic, 0): 1})
    under_way = [asyncio.create_task(log.append(topic, [Outgoing(b"key", b"%d" % i)])) for i in range(50)]
    await asyncio.sleep(0)

    own_kafka.brokers[0].kill()
    await asyncio.gather(*under_way, return_exceptions=True)
    own_kafka.brokers[0].start()
    await asyncio.to_thread(own_kafka.wait_until_ready)
    await eventually(log, topic, b"after")

    answered = {b"%d" % i for i, call in enumerate(under_way) if call.exception() is None}
    found = Counter(record.value for record in await log.read(TP(topic, 0), 0, 1000))
    assert set(found.values()) == {1}
    assert answered | {b"before", b"after"} <= found.keys()
    polled: list[bytes | None] = []
    deadline = time.monotonic() + 60
    while b"after" not in polled and time.monotonic() < deadline:
        for records in (await member.poll(100, 1)).values():
            polled += [record.value for record in records]
    assert set(polled) == found.keys() - {b"before"}
    await member.close()
    await log.stop()


@pytest.mark.kafka
@pytest.mark.slow
async def test_closing_ends_even_when_kafka_is_gone(own_kafka: Kafka) -> None:
    log = KafkaLog(own_kafka.url, timeout_s=2)
    await log.start()
    topic = await new_topic(log)
    member = await log.subscribe(f"group-{topic}", [topic])
    own_kafka.brokers[0].kill()
    waiting = asyncio.create_task(log.append(topic, [Outgoing(b"key", b"never")]))
    await asyncio.sleep(0.1)
    began = time.monotonic()

    await member.close()
    await log.stop()

    assert time.monotonic() - began < 15
    with pytest.raises(LogBusy):
        await waiting


@pytest.mark.kafka
@pytest.mark.slow
async def test_what_waits_for_kafka_is_bounded(own_kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_append, "MOST_HELD_BYTES", 1_000_000)
    log = KafkaLog(own_kafka.url, timeout_s=3)
    await log.start()
    topic = await new_topic(log)
    own_kafka.brokers[0].pause()

    calls = [asyncio.create_task(log.append(topic, [Outgoing(b"key", bytes(100_000))])) for _ in range(15)]
    await asyncio.sleep(0.5)
    at_once = [call for call in calls if call.done()]
    own_kafka.brokers[0].resume()
    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert len(at_once) == 6
    assert all(isinstance(call.exception(), LogBusy) for call in at_once)
    assert sum(1 for answer in answers if not isinstance(answer, BaseException)) == 9
    assert len(await log.read(TP(topic, 0), 0, 100)) == 9
    await log.append(topic, [Outgoing(b"key", bytes(100_000))])  # what was held is given back
    await log.stop()


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("own_kafka", [3], indirect=True)
async def test_the_death_of_one_broker_of_three_is_not_even_noticed(own_kafka: Kafka) -> None:
    log = KafkaLog(own_kafka.url)
    await log.start()
    topic = f"topic-{uuid.uuid4().hex}"
    await log.create_topic(topic, 6, DAY_MS, 3)
    answered: set[bytes] = set()
    is_over = False

    async def offer(caller: int) -> None:
        turn = 0
        while not is_over:
            value = b"%d/%d" % (caller, turn)
            await log.append(topic, [Outgoing(b"key-%d" % turn, value)])
            answered.add(value)
            turn += 1

    async def until(count: int) -> None:
        while len(answered) < count:
            assert not any(call.done() for call in callers), [call.exception() for call in callers if call.done()]
            await asyncio.sleep(0.05)

    callers = [asyncio.create_task(offer(caller)) for caller in range(8)]
    async with asyncio.timeout(90):
        await until(100)
        own_kafka.brokers[0].kill()
        await until(len(answered) + 500)
    is_over = True
    await asyncio.gather(*callers)

    found: Counter[bytes | None] = Counter()
    for partition in range(6):
        offset = 0
        while records := await log.read(TP(topic, partition), offset, 10_000):
            found.update(record.value for record in records)
            offset = records[-1].offset + 1
    await log.stop()
    assert found == Counter(answered)  # each once


async def eventually(log: KafkaLog, topic: str, value: bytes, within_s: float = 60) -> None:
    """Append as a caller does who sends again what was not taken, but not what may have been."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            await log.append(topic, [Outgoing(b"key", value)])
        except LogUnavailable:
            found = await log.read(TP(topic, 0), 0, 1000)
            if value in [record.value for record in found]:
                return
        except LogBusy:
            pass
        else:
            return
        assert time.monotonic() < deadline, "Kafka took nothing"
        await asyncio.sleep(0.2)
