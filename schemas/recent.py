"""The memory of recent message ids: who sends an event twice is heard once.

A ring of 12-byte entries in one `bytes`: 8 bytes of the id's hash, 4 bytes of the time it was received, in seconds.
One value, so a record that holds it is encoded and decoded without touching its entries.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

KEEP_S = 24 * 3600
MOST = 1_000  # entries of one part; beyond it the oldest go first
_ENTRY = Struct(">8sI")
_SIZE = _ENTRY.size
_LATEST_S = 2**32 - 1


def token(source: str, message_id: str, attempt: int = 0) -> bytes:
    """What is remembered of a message: 8 bytes. Two sources may use the same ids; a mended event has a new attempt."""
    return blake2b(f"{source}\0{message_id}\0{attempt}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def has_seen(seen: bytes, tok: bytes) -> bool:
    at = seen.find(tok)
    while at >= 0 and at % _SIZE:  # a match across two entries is none
        at = seen.find(tok, at + 1)
    return at >= 0


def remember(seen: bytes, tok: bytes, received_ms: int, keep_s: int = KEEP_S) -> bytes:
    """The memory with one more id, less those older than `keep_s` before it and beyond the most."""
    now_s = min(max(received_ms // 1000, 0), _LATEST_S)
    start = max(0, len(seen) - (MOST - 1) * _SIZE)
    while start < len(seen) and int.from_bytes(seen[start + 8 : start + 12]) < now_s - keep_s:
        start += _SIZE
    return seen[start:] + _ENTRY.pack(tok, now_s)
