"""Kafka's records as ours, in one step: aiokafka would make an object of its own of each first, and check each in turn.

`install` puts this in the place of aiokafka's class for every consumer of the process. It is private to aiokafka;
`tests/streams/test_transport.py` guards what is used of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka import errors
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords

from streams.log import Record

_new = tuple.__new__


class _Place:
    """From where on the next record is.

    Who reads knows this and not the `Records`, which know who reads: two that know each other stay until Python looks
    for such, and what a rebalance throws away unread is megabytes.
    """

    __slots__ = ("offset",)

    offset: int


class Records(PartitionRecords):  # type: ignore[misc]
    """The records of one fetch of a partition, from `next_fetch_offset` on, each once."""

    def __init__(self, *given: Any) -> None:
        self._place = _Place()
        super().__init__(*given)

    @property
    def next_fetch_offset(self) -> int:
        return self._place.offset

    @next_fetch_offset.setter
    def next_fetch_offset(self, offset: int) -> None:
        self._place.offset = offset

    def __iter__(self) -> Iterator[Record]:
        found: Iterator[Record] | None = self._records_iterator
        return iter(()) if found is None else found

    def _unpack_records(self) -> Iterator[Record]:
        if self._isolation_level == READ_COMMITTED and self._aborted_transactions:
            all_told: Iterator[Record] = super()._unpack_records()
            return all_told
        return _read(self._tp, self._records, self._check_crcs, self._place)

    def _consumer_record(self, tp: Any, record: Any) -> Record:
        return Record(tp.topic, tp.partition, record.offset, record.timestamp, record.key, record.value,
                      tuple(record.headers))  # fmt: skip


def _read(tp: Any, batches: Any, checks_crcs: bool, place: _Place) -> Iterator[Record]:
    topic, partition = tp
    while batches.has_next():
        batch = batches.next_batch()
        if checks_crcs and not batch.validate_crc():
            raise errors.CorruptRecordException(f"Invalid CRC - {tp}")
        if not batch.is_control_batch:
            first = place.offset
            for record in batch:
                offset = record.offset
                if offset < first:  # the fetch began in the middle of the batch
                    continue
                place.offset = offset + 1
                headers = record.headers
                yield _new(Record, (topic, partition, offset, record.timestamp, record.key, record.value,
                                    tuple(headers) if headers else ()))  # fmt: skip
        place.offset = batch.next_offset  # of a compacted batch it is beyond its last record


def install() -> None:
    """All consumers of this process hand out `streams.log.Record`s."""
    fetcher.PartitionRecords = Records
