"""A journey as a graph: where each step stands, and how the ways between them run. Drawn by journey_graph.html.

Steps stand in rows, each below all that lead to it, in the column of what leads to it where that is free. A way to the
next row is a curve; one that passes rows by runs beside all columns, on the right, and one that leads back on the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from config.journey_graph import Way, ways_of
from schemas.journeys import END, BranchStep, JourneyFile

ENTER = ""  # the name of the node by which people enter; no step has it
HELD_OUT = ("control",)  # the path of the way of those who get nothing

WIDTH, HEIGHT = 228, 104  # of a node
CASE_HEIGHT, MOST_CASES = 20, 6  # of a branch, each a line of its own
PORT = 80  # room for what stands beside a way that leaves
ROW_GAP, COLUMN_GAP = 70, 24
LANE, MARGIN = 14, 10
STUB = 25  # of a way that leads to the end
ASIDE = 37  # below a step, a way that passes others turns aside
ROUND = 8
LANES_APART, MOST_APART = 4, 5  # lines of several lanes between two rows
THIN, THICK = 1.5, 5.0


class Node(NamedTuple):
    """A step, by its name, or `ENTER`."""

    name: str
    x: float
    y: float
    width: float
    height: float


class Edge(NamedTuple):
    """A way between steps.

    Attributes:
        path: as an SVG draws it.
        label_x, label_y: where what is said of it begins.
        end_x, end_y: where it ends, if that is the end of the journey; else None.
        is_back: it leads to a step before.
    """

    way: Way
    path: str
    label_x: float
    label_y: float
    end_x: float | None = None
    end_y: float = 0.0
    is_back: bool = False


class Graph(NamedTuple):
    width: float
    height: float
    nodes: list[Node]
    edges: list[Edge]


def graph_of(said: JourneyFile) -> Graph:
    """Where everything of a journey stands."""
    return _Layout(said).graph()


def ways_from_entry(said: JourneyFile) -> list[Way]:
    """All ways of a journey, those of entry first."""
    return [Way(ENTER, said.steps[0].step, ("enter",)), Way(ENTER, END, HELD_OUT), *ways_of(said)]


def thickness(count: int | None, most: int) -> float:
    """How thick a way is that so many of so many went."""
    return THIN + (THICK - THIN) * min(count or 0, most) / most if most else THIN


class _Layout:
    def __init__(self, said: JourneyFile) -> None:
        self.ways = ways_from_entry(said)
        self.names = [ENTER, *(step.step for step in said.steps)]
        self.out: dict[str, list[Way]] = {name: [] for name in self.names}
        for way in self.ways:
            self.out[way.step].append(way)
        cases = {step.step: min(len(step.branch), MOST_CASES) for step in said.steps if isinstance(step, BranchStep)}
        self.heights = {name: HEIGHT + CASE_HEIGHT * cases.get(name, 0) for name in self.names}
        self.widths = {name: max(WIDTH, PORT * len(self.out[name])) for name in self.names}
        self.back = self._back()
        self.row = self._rows()
        self.column = self._columns()
        self.tops: list[float] = []
        self.bottoms: list[float] = []  # of each row, below the tallest of it

    def _back(self) -> set[Way]:
        """Ways that lead to a step which leads here; without them there is no circle."""
        found: set[Way] = set()
        done: set[str] = set()

        def go_on(name: str, trail: frozenset[str]) -> None:
            for way in self.out[name]:
                if way.to in trail:
                    found.add(way)
                elif way.to != END and way.to not in done:
                    go_on(way.to, trail | {way.to})
            done.add(name)

        go_on(ENTER, frozenset({ENTER}))
        return found

    def _rows(self) -> dict[str, int]:
        rows = dict.fromkeys(self.names, 0)
        onward = [way for way in self.ways if way.to != END and way not in self.back]
        for _ in self.names:  # each round sets at least one row for good
            before = dict(rows)
            for way in onward:
                rows[way.to] = max(rows[way.to], rows[way.step] + 1)
            if rows == before:
                break
        return rows

    def _columns(self) -> dict[str, int]:
        columns: dict[str, int] = {}
        taken: set[tuple[int, int]] = set()
        above: dict[str, list[str]] = {name: [] for name in self.names}
        for way in self.ways:
            if way.to != END and way not in self.back:
                above[way.to].append(way.step)
        for name in sorted(self.names, key=lambda name: (self.row[name], self.names.index(name))):
            column = min((columns[each] for each in above[name]), default=0)
            while (self.row[name], column) in taken:
                column += 1
            columns[name] = column
            taken.add((self.row[name], column))
        return columns

    # --- from rows and columns to places

    def graph(self) -> Graph:
        lanes = self._lanes()
        left = MARGIN + LANE * len({lane for way, lane in lanes.items() if way in self.back})
        columns = range(max(self.column.values()) + 1)
        widths = [max(self.widths[name] for name in self.names if self.column[name] == column) for column in columns]
        starts = [left + sum(widths[:column]) + COLUMN_GAP * column for column in columns]
        y = float(MARGIN)
        for row in range(max(self.row.values()) + 1):
            self.tops.append(y)
            self.bottoms.append(y + max(self.heights[name] for name in self.names if self.row[name] == row))
            y = self.bottoms[-1] + ROW_GAP
        nodes = {name: self._node(name, starts, widths) for name in self.names}
        right = starts[-1] + widths[-1]
        edges = [edge for name in self.names for edge in self._edges(nodes, name, lanes, right)]
        on_right = max((lane + 1 for way, lane in lanes.items() if way not in self.back), default=0)
        room = 44 if any(self.column[name] == columns[-1] for name in self.names) else 0
        is_ended = any(edge.end_x is not None and edge.end_y > y - ROW_GAP for edge in edges)
        return Graph(right + max(LANE * on_right + MARGIN, room), y - ROW_GAP + (STUB if is_ended else 0) + MARGIN,
                     list(nodes.values()), edges)  # fmt: skip

    def _node(self, name: str, starts: Sequence[float], widths: Sequence[float]) -> Node:
        column, width = self.column[name], self.widths[name]
        x = starts[column] + (widths[column] - width) / 2
        return Node(name, x, self.tops[self.row[name]], width, self.heights[name])

    def _lanes(self) -> dict[Way, int]:
        """The ways that run beside the columns, each with its place there: 0 is next to them."""
        taken: dict[bool, list[list[tuple[int, int]]]] = {True: [], False: []}
        found: dict[Way, int] = {}
        for way in self.ways:
            if way.to == END or self._is_straight(way):
                continue
            rows = sorted((self.row[way.step], self.row[way.to]))
            lanes = taken[way in self.back]
            lane = next((n for n, used in enumerate(lanes) if all(rows[1] < a or rows[0] > b for a, b in used)),
                        len(lanes))  # fmt: skip
            if lane == len(lanes):
                lanes.append([])
            lanes[lane].append((rows[0], rows[1]))
            found[way] = lane
        return found

    def _is_straight(self, way: Way) -> bool:
        """Whether it leads down without passing a step."""
        if way in self.back:
            return False
        first, last, column = self.row[way.step], self.row[way.to], self.column[way.to]
        if last == first + 1:
            return True
        return column == self.column[way.step] and not any(
            self.column[name] == column and first < row < last for name, row in self.row.items()
        )

    def _edges(self, nodes: Mapping[str, Node], name: str, lanes: Mapping[Way, int], right: float) -> list[Edge]:
        node = nodes[name]

        def place(way: Way) -> float:
            """Left to right, so that ways cross as seldom as may be."""
            if way in self.back:
                return -1.0
            if way.to == END:
                return node.x + node.width / 2 if way.path != HELD_OUT else right
            return right + lanes[way] if way in lanes else nodes[way.to].x + nodes[way.to].width / 2

        found = []
        leaving = sorted(self.out[name], key=place)
        for number, way in enumerate(leaving):
            x, y = node.x + (number + 0.5) * node.width / len(leaving), node.y + node.height
            label_x, label_y = x + 6, y + 17
            if way.to == END:
                found.append(Edge(way, f"M{x:.1f} {y:.1f}V{y + STUB - 6:.1f}", label_x, label_y, x, y + STUB))
                continue
            to = nodes[way.to]
            to_x, to_y = to.x + to.width / 2, to.y
            if way not in lanes:
                bend = to_y - ROW_GAP + 22
                middle = (bend + to_y) / 2
                path = f"M{x:.1f} {y:.1f}V{bend:.1f}C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} " \
                       f"{to_x:.1f} {to_y - 5:.1f}"  # fmt: skip
            else:
                lane = lanes[way]
                is_back = way in self.back
                first = min(node.x for node in nodes.values())
                along = first - LANE * (lane + 1) if is_back else right + LANE * (lane + 1)
                apart = LANES_APART * min(lane, MOST_APART)
                down = self.bottoms[self.row[name]] + ASIDE + apart
                path = _orthogonal(x, y, along, down, to_y - 14 - apart, to_x, to_y - 5)
            found.append(Edge(way, path, label_x, label_y, is_back=way in self.back))
        return found


def _orthogonal(x: float, y: float, along: float, down: float, up: float, to_x: float, to_y: float) -> str:
    """Down, aside to a lane, along it, back, and down again, with round corners."""
    aside = 1 if along > x else -1
    back = 1 if to_x > along else -1
    way = 1 if up > down else -1
    r = min(ROUND, abs(along - x) / 2, abs(to_x - along) / 2, abs(up - down) / 2)
    return (
        f"M{x:.1f} {y:.1f}V{down - r:.1f}Q{x:.1f} {down:.1f} {x + aside * r:.1f} {down:.1f}"
        f"H{along - aside * r:.1f}Q{along:.1f} {down:.1f} {along:.1f} {down + way * r:.1f}"
        f"V{up - way * r:.1f}Q{along:.1f} {up:.1f} {along + back * r:.1f} {up:.1f}"
        f"H{to_x - back * r:.1f}Q{to_x:.1f} {up:.1f} {to_x:.1f} {up + r:.1f}V{to_y:.1f}"
    )
