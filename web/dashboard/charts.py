"""Small drawings made on the server, as SVG that scales with its place and takes its colours from the style sheet.

No words are drawn: what a chart says stands in the table beside it, so each is hidden from screen readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from markupsafe import Markup

Value = int | float | Decimal | None


def sparkline(values: Sequence[Value], width: int = 120, height: int = 32) -> Markup:
    """The course of a number as a line over a faint area; nothing where there are fewer than two points."""
    points = [float(value or 0) for value in values]
    if len(points) < 2 or not any(points):
        return Markup("")
    low, high = min(0.0, *points), max(points)
    scale = (height - 4) / ((high - low) or 1)
    step = width / (len(points) - 1)
    path = " ".join(f"{i * step:.1f},{height - 2 - (value - low) * scale:.1f}" for i, value in enumerate(points))
    # Numbers only: nothing here comes from outside.
    return Markup(  # noqa: S704
        f'<svg class="spark" viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true" '
        f'focusable="false"><polygon class="spark-area" points="0,{height} {path} {width},{height}"/>'
        f'<polyline class="spark-line" points="{path}"/></svg>'
    )


def columns(values: Sequence[Value], beside: Sequence[Value] = (), height: int = 120) -> Markup:
    """Upright bars of equal width; those of `beside` stand on top of them, in the second colour."""
    if not values:
        return Markup("")
    lower = [max(float(value or 0), 0.0) for value in values]
    upper = [max(float(value or 0), 0.0) for value in beside] or [0.0] * len(lower)
    high = max(map(float.__add__, lower, upper)) or 1.0
    unit = 10
    gap = 2 if len(lower) <= 120 else 0.5
    bars: list[str] = []
    for i, (low, more) in enumerate(zip(lower, upper, strict=True)):
        size, size_more = low / high * height, more / high * height
        if low:
            bars.append(_bar("bar", i * unit + gap / 2, height - size, unit - gap, size))
        if more:
            bars.append(_bar("bar bar-second", i * unit + gap / 2, height - size - size_more, unit - gap, size_more))
    return Markup(  # noqa: S704
        f'<svg class="columns" viewBox="0 0 {len(lower) * unit} {height}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{"".join(bars)}</svg>'
    )


def _bar(name: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{name}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{max(height, 0.8):.2f}"/>'


def flow(up: Sequence[Value], down: Sequence[Value], height: int = 120) -> Markup:
    """Bars that stand on a line in the middle, and others, in the second colour, that hang from it."""
    above = [max(float(value or 0), 0.0) for value in up]
    below = [max(float(value or 0), 0.0) for value in down]
    high = max([*above, *below], default=0.0) or 1.0
    unit, gap, middle = 10, 2, height / 2
    bars: list[str] = []
    for i, (more, less) in enumerate(zip(above, below, strict=True)):
        size, size_less = more / high * middle, less / high * middle
        if more:
            bars.append(_bar("bar", i * unit + gap / 2, middle - size, unit - gap, size))
        if less:
            bars.append(_bar("bar bar-second", i * unit + gap / 2, middle, unit - gap, size_less))
    line = f'<rect class="flow-line" x="0" y="{middle - 0.4:.2f}" width="{len(above) * unit}" height="0.8"/>'
    return Markup(  # noqa: S704
        f'<svg class="columns" viewBox="0 0 {len(above) * unit} {height}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{line}{"".join(bars)}</svg>'
    )


def interval(low: float, high: float, middle: float) -> Markup:
    """From where to where something may be, and where it is thought to be, beside a line at 0."""
    reach = max(abs(low), abs(high), abs(middle)) * 1.1 or 1.0
    start, end, at = (50 + 50 * value / reach for value in (low, high, middle))
    side = "interval-above" if low > 0 else "interval-below" if high < 0 else "interval-both"
    return Markup(  # noqa: S704
        '<svg class="interval" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="interval-bar {side}" x="{start:.2f}" y="4" width="{max(end - start, 0.5):.2f}" height="4"/>'
        '<rect class="interval-zero" x="49.85" y="0" width="0.3" height="12"/>'
        f'<rect class="interval-at {side}" x="{at - 0.3:.2f}" y="2" width="0.6" height="8"/></svg>'
    )


def share(value: Value, whole: Value) -> Markup:
    """A bar that is `value` of `whole` long, to lie behind a row of a list."""
    ratio = min(max(float(value or 0) / (float(whole or 0) or 1.0), 0.0), 1.0)
    return Markup(  # noqa: S704
        '<svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="share-bar" width="{100 * ratio:.2f}" height="10"/></svg>'
    )
