"""An event in one line: the few of its facts that tell most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NAMES = ("order_id", "name", "title", "product", "subject", "query", "plan", "campaign", "rating")
AMOUNTS = ("revenue", "total", "value", "price")
SAID_OF_ONESELF = ("name", "email", "plan", "company")
LONGEST_FACT = 80  # characters


def summary(kind: str, name: str, other_id: str, properties: Mapping[str, Any], traits: Mapping[str, Any],
            context: Mapping[str, Any]) -> str:  # fmt: skip
    """Facts of a call of type `kind`, separated by dots. `other_id` is the group or the previous id.

    >>> summary("track", "", "", {"name": "Celadon cup", "price": 18, "currency": "EUR"}, {}, {})
    'Celadon cup · 18 EUR'
    """
    return " · ".join(text for text in _facts(kind, name, other_id, properties, traits, context) if text)


def _facts(kind: str, name: str, other_id: str, properties: Mapping[str, Any], traits: Mapping[str, Any],
           context: Mapping[str, Any]) -> Iterator[str]:  # fmt: skip
    if kind in ("page", "screen"):
        page = context.get("page")
        yield _text(name)
        yield _text(properties.get("path") or (page.get("path") if isinstance(page, dict) else ""))
    elif kind in ("identify", "group"):
        yield _text(other_id)
        yield from (_text(traits.get(trait)) for trait in SAID_OF_ONESELF)
    elif kind == "alias":
        yield _text(other_id)
    else:
        yield from (_text(properties.get(fact)) for fact in NAMES)
        amount = next((_text(properties[fact]) for fact in AMOUNTS if fact in properties), "")
        yield f"{amount} {_text(properties.get('currency'))}".strip() if amount else ""


def _text(value: object) -> str:
    return str(value)[:LONGEST_FACT] if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
