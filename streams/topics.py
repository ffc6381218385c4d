"""Make the topics of `schemas.topics` in a log, and refuse a log whose topics would break what they promise."""

from __future__ import annotations

from config.settings import Settings
from schemas.errors import ConfigError
from schemas.times import DAY_MS
from schemas.topics import TOPICS, Topic
from streams.log import Log, TopicState

LARGEST_BYTES = 9 * 1024 * 1024  # a record of a person of the largest size there is, and what goes with it
_CREATE = "Make it with `tidewire topics create`."


async def create_topics(log: Log, settings: Settings) -> list[str]:
    """Make the topics that are missing; those that exist are left as they are, right or wrong.

    Topics that go with `events` get as many partitions as it has, whatever the settings say now.

    Returns:
        The names of the topics made.
    """
    before = await log.topics()
    events = before.get("events")
    together = settings.partitions if events is None else events.partitions
    missing = [topic for topic in TOPICS.values() if topic.name not in before]
    for topic in missing:
        await log.create_topic(
            topic.name, together if topic.with_events else settings.partitions, topic.retention_ms, settings.replication
        )
    return [topic.name for topic in missing]


async def check_topics(log: Log, settings: Settings) -> None:
    """Refuse to work on wrong topics: a missing one, one with other partitions than `events` or than the settings say,
    one that forgets early.

    Raises:
        ConfigError: with every fault and its mend.
    """
    found = await log.topics()
    faults = find_faults(found)
    if faults:
        raise ConfigError(settings.log_url, " ".join(faults.values()))
    there = found["events"].partitions
    if "partitions" in settings.model_fields_set and settings.partitions != there:
        raise ConfigError("partitions", f"it is {settings.partitions}, but topic 'events' has {there}, and that cannot "
                                        "be changed: which partition a person is in would be another.",
                          f"Set it to {there}, or leave it out.")  # fmt: skip


def find_faults(found: dict[str, TopicState]) -> dict[str, str]:
    """What is wrong with the topics that exist: by topic, one line that says how to mend it."""
    events = found.get("events")
    faults: dict[str, str] = {}
    for topic in TOPICS.values():
        fault = _fault(topic, found.get(topic.name), events)
        if fault:
            faults[topic.name] = f"Topic {topic.name!r} {fault}"
    return faults


def _fault(topic: Topic, state: TopicState | None, events: TopicState | None) -> str:
    if state is None:
        return f"does not exist. {_CREATE}"
    if topic.with_events and events is not None and state.partitions != events.partitions:
        # A person's records would be read by two workers, each with half of her state.
        return (f"has {state.partitions} partitions, but 'events' has {events.partitions} and both must have the same. "
                "Stop the workers, delete the topic, and run `tidewire topics create`.")  # fmt: skip
    return _forgets(topic, state) or _loses(state)


def _forgets(topic: Topic, state: TopicState) -> str:
    if topic.is_compacted and not state.is_compacted:
        # Deletion by age forgets people who were quiet for that long.
        return "is not compacted, so it would forget people. Set cleanup.policy=compact."
    if not topic.is_compacted and state.is_compacted:
        return "is compacted, so it would keep only the newest record of a person. Set cleanup.policy=delete."
    if topic.is_compacted and (state.retention_ms is not None or state.most_bytes is not None):
        return "is compacted, but drops old records too, so it would forget people. Set cleanup.policy=compact alone."
    if state.most_bytes is not None:
        return (f"drops its oldest records beyond {state.most_bytes} bytes a partition, however young they are. "
                "Set retention.bytes=-1.")  # fmt: skip
    if topic.retention_ms is not None and state.retention_ms is not None and state.retention_ms < topic.retention_ms:
        return (f"keeps records for {_days(state.retention_ms)}, less than {_days(topic.retention_ms)}. "
                f"Set retention.ms={topic.retention_ms} or more.")  # fmt: skip
    return ""


def _loses(state: TopicState) -> str:
    if state.in_sync > state.copies:
        return (f"wants {state.in_sync} copies in sync and has {state.copies}, so nothing can be written. "
                f"Set min.insync.replicas={min(2, state.copies)}.")  # fmt: skip
    if state.copies >= 3 and state.in_sync < 2:
        return ("acknowledges a record that one broker has, so it would be lost with that broker. "
                "Set min.insync.replicas=2.")  # fmt: skip
    if state.is_unclean:
        return ("lets a broker lead that lags, so acknowledged records would be lost. "
                "Set unclean.leader.election.enable=false.")  # fmt: skip
    if state.largest_bytes is not None and state.largest_bytes < LARGEST_BYTES:
        return (f"takes {state.largest_bytes} bytes at once, less than the record of one person can have. "
                f"Set max.message.bytes={LARGEST_BYTES} or more.")  # fmt: skip
    return ""


def _days(ms: int) -> str:
    return f"{ms / DAY_MS:g} days"
