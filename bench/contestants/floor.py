"""The floor: a bare consumer, a typed decode and a dict. It keeps nothing durably and commits nothing."""

from __future__ import annotations

from confluent_kafka import Consumer

from bench.contestants.contest import Meter, job
from bench.contestants.counter import Counted, count, decode_seen, make_new

TOGETHER = 2_000


def main() -> None:
    given, meter = job(), Meter()
    consumer = Consumer({
        "bootstrap.servers": given.kafka, "group.id": given.group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })  # fmt: skip
    consumer.subscribe([given.topic])
    states: dict[bytes, Counted] = {}
    done = 0
    while done < given.events:
        messages = consumer.consume(TOGETHER, 1.0)
        if messages:
            meter.begin()
        for message in messages:
            if message.error() is not None:
                raise RuntimeError(message.error())
            key = message.key()
            state = states.get(key)
            if state is None:
                state = states[key] = make_new(given.state_bytes)
            count(state, decode_seen(message.value()))
        done += len(messages)
    meter.done(done, persons=len(states), applied=sum(state.count for state in states.values()))
    consumer.close()


if __name__ == "__main__":
    main()
