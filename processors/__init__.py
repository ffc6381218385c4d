"""What happens to people: one file, one processor.

A processor is pure: what it does depends on its arguments alone. It opens no socket, reads no clock, rolls no dice,
and knows no Kafka. `docs/adding-a-processor.md` walks through one.
"""

from __future__ import annotations

from processors.base import Person, Processor, Table

__all__ = ["Person", "Processor", "Table"]
