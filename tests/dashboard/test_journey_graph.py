"""The graph of a journey: every step has a place of its own, every way leads where it should, and counts add up."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.journey_graph import WrongGraph, check_graph
from config.yaml_file import parse_yaml
from schemas.journeys import END, MOST_STEPS, JourneyFile
from tests.dashboard.journeys import BASKET
from web.dashboard.charts import interval
from web.dashboard.journey_drawing import draw
from web.dashboard.journey_graph import ENTER, THICK, THIN, graph_of, thickness, ways_from_entry
from web.dashboard.language import Language
from web.dashboard.queries.journeys import flow_of, unknown_flow


def journey(steps: str) -> JourneyFile:
    values = parse_yaml(f"enter: {{event: {{did: A}}}}\nsteps:\n{steps}", "x.yaml").values
    return JourneyFile.model_validate(values)


SAID = JourneyFile.model_validate(parse_yaml(BASKET, "basket.yaml").values)


def places(said: JourneyFile) -> dict[str, tuple[float, float]]:
    return {node.name: (node.x + node.width / 2, node.y) for node in graph_of(said).nodes}


def test_steps_that_follow_each_other_stand_below_each_other() -> None:
    at = places(journey("  - {step: a, wait: 1 hour}\n  - {step: b, send: x}\n  - {step: c, exit: why}\n"))

    assert len({x for x, _ in at.values()}) == 1
    assert [y for _, y in at.values()] == sorted({y for _, y in at.values()})


def test_where_ways_part_steps_stand_side_by_side_and_meet_below() -> None:
    at = places(SAID)

    assert at["remind"][1] == at["club"][1] == at["coin"][1] > at["who"][1]
    assert len({at[name][0] for name in ("remind", "club", "coin")}) == 3
    assert at["evening"][1] > at["mark"][1]  # which leads to it, though a draw does, too
    assert at["call_her"][1] > max(at["evening"][1], at["remind"][1])


def test_a_way_back_runs_on_the_left_and_one_that_passes_steps_on_the_right() -> None:
    graph = graph_of(SAID)
    edges = {(edge.way.step, edge.way.to): edge for edge in graph.edges}
    first = min(node.x for node in graph.nodes)
    last = max(node.x + node.width for node in graph.nodes)

    assert [pair for pair, edge in edges.items() if edge.is_back] == [("once_more", "remind")]
    assert min(_across(edges["once_more", "remind"].path)) < first
    assert max(_across(edges["remind", "call_her"].path)) > last
    assert max(_across(edges["remind", "call_her"].path)) < graph.width
    assert edges["club", END].end_x is not None and edges["remind", "call_her"].end_x is None


def _across(path: str) -> list[float]:
    """The places of its horizontal lines."""
    return [float(part.split("Q")[0]) for part in path.split("H")[1:]]


names = st.integers(1, 12).map(lambda count: [f"s{number}" for number in range(count)])


@st.composite
def journeys(draw_: Any) -> JourneyFile:
    """Steps that lead anywhere; those that cannot be gone through are left out."""
    steps = draw_(names)
    to = st.sampled_from([*steps, END])
    arm = to.map(lambda other: f"{{then: {other}}}")
    forms = st.one_of(
        st.just("wait: 1 hour"),
        to.map(lambda other: f"send: x, refused: {other}"),
        to.map(lambda other: f"wait: 1 hour, then: {other}"),
        st.lists(arm, min_size=2, max_size=8).map(lambda arms: f"split: [{', '.join(arms)}]"),
        st.sampled_from(steps).map(lambda other: f"go: {other}, times: 2"),
    )
    said = journey("".join(f"  - {{step: {step}, {draw_(forms)}}}\n" for step in steps))
    try:
        check_graph(said)
    except WrongGraph:
        return journey("  - {step: a, wait: 1 hour}\n")
    return said


@given(journeys())
def test_no_step_hides_another_and_all_of_it_is_within_the_picture(said: JourneyFile) -> None:
    graph = graph_of(said)

    assert [node.name for node in graph.nodes] == [ENTER, *(step.step for step in said.steps)]
    for one, other in ((a, b) for i, a in enumerate(graph.nodes) for b in graph.nodes[i + 1 :]):
        assert (one.x + one.width <= other.x or other.x + other.width <= one.x
                or one.y + one.height <= other.y or other.y + other.height <= one.y)  # fmt: skip
    assert all(node.x >= 0 and node.x + node.width <= graph.width and node.y + node.height <= graph.height
               for node in graph.nodes)  # fmt: skip
    assert sorted(edge.way for edge in graph.edges) == sorted(ways_from_entry(said))
    at = {node.name: node for node in graph.nodes}
    for edge in graph.edges:
        if edge.way.to != END and not edge.is_back:
            assert at[edge.way.to].y >= at[edge.way.step].y + at[edge.way.step].height


def test_the_largest_journey_is_drawn() -> None:
    said = journey("".join(f"  - {{step: s{number}, wait: 1 hour}}\n" for number in range(MOST_STEPS)))

    rows = [node.y for node in graph_of(said).nodes]

    assert len(rows) == MOST_STEPS + 1 and all(below > above for above, below in pairwise(rows))


# --- counts


def line(kind: str, step: str = "", times: int = 1, **facts: Any) -> dict[str, Any]:
    return {"kind": kind, "step": step, "number": 0, "arm": 0, "why": "", "is_control": False, "times": times, **facts}


LINES = [
    line("entered", times=100), line("entered", times=11, is_control=True), line("woke", "pause", 80),
    line("left", "pause", 5, why="goal"), line("branched", "who", 20, number=1), line("branched", "who", 10, number=2),
    line("branched", "who", 50), line("proposed", "remind", 60), line("refused", "remind", 10, why="cap"),
    line("happened", "read_it", 15), line("timed_out", "read_it", 40), line("left", "give_up", 18, why="exit"),
    line("split", "coin", 4, arm=1), line("split", "coin", 6, arm=2), line("left", "call_her", 9, why="done"),
    line("opened", "call_her", 9),
]  # fmt: skip
HERE = {"pause": {"waits": 15}, "read_it": {"waits": 4, "held": 1}}


def test_ways_are_counted_from_the_ledger() -> None:
    flow = flow_of(SAID, LINES, HERE)
    went = {(way.step, way.to, way.path[0]): times for way, times in flow.went.items()}

    assert went[ENTER, "pause", "enter"] == 100 and went[ENTER, END, "control"] == 11
    assert went["who", "club", "branch"] == 20 and went["who", "remind", "then"] == 50
    assert went["remind", "read_it", "then"] == 60 and went["remind", "call_her", "refused"] == 10
    assert went["read_it", END, "then"] == 15 and went["read_it", "once_more", "otherwise"] == 40
    assert went["coin", "mark", "split"] == 4 and went["coin", "evening", "split"] == 6
    assert went["give_up", END, "exit"] == 18
    assert flow.most == 100


def test_a_go_that_no_line_tells_of_is_counted_by_what_is_missing_where_it_leads() -> None:
    flow = flow_of(SAID, LINES, HERE)
    went = {(way.step, way.to): times for way, times in flow.went.items()}

    assert flow.stops["remind"].came == 70  # 50 by the branch, so 20 came again
    assert (went["once_more", "remind"], went["once_more", "give_up"]) == (20, 20)


def test_a_step_says_who_is_there_who_came_and_who_left() -> None:
    stops = flow_of(SAID, LINES, HERE).stops

    assert (stops["pause"].here, stops["pause"].came, stops["pause"].left) == (15, 100, {"goal": 5})
    assert stops["read_it"].waiting == {"waits": 4, "held": 1} and stops["read_it"].came == 60
    assert stops["give_up"].lost == 0 and stops["call_her"].lost == 0  # an exit is a way, and so is the end
    assert stops[ENTER].came == 111


def test_where_two_ends_of_a_step_lead_to_the_same_both_count() -> None:
    said = journey("  - {step: a, wait_until: {did: B}, at_most: 1 day}\n  - {step: b, send: x}\n")

    flow = flow_of(said, [line("happened", "a", 3), line("timed_out", "a", 4), line("refused", "b", 2),
                          line("proposed", "b", 5)], {})  # fmt: skip

    assert {way.step: times for way, times in flow.went.items() if way.step} == {"a": 7, "b": 7}


@pytest.mark.parametrize("code", ["en", "zh"])
def test_what_is_drawn_says_what_each_step_and_way_is(code: str) -> None:
    drawn = draw(SAID, flow_of(SAID, LINES, HERE), Language(code))
    steps = {node.name: node for node in drawn.nodes}
    labels = {way.way.to: way.label for way in steps["who"].ways}

    assert steps["who"].kind == "branch" and len(steps["who"].cases) == 2
    assert labels == {"club": ("case 1", "情况 1")[code == "zh"], "coin": ("case 2", "情况 2")[code == "zh"],
                      "remind": ("else", "其余")[code == "zh"]}  # fmt: skip
    assert {way.label for way in steps["coin"].ways} == {"25%", "75%"}
    assert [way.label for way in steps["pause"].ways] == [""]
    says = next(way.says for way in steps["who"].ways if way.way.to == "club")
    assert says == ("whose “plan” is “club”", "“plan”是“club”")[code == "zh"]


def test_what_was_not_saved_yet_has_no_counts() -> None:
    drawn = draw(SAID, unknown_flow(SAID), Language("en"))

    assert {way.went for way in drawn.edges} == {None} and {way.thickness for way in drawn.edges} == {THIN}
    assert (thickness(50, 100), thickness(100, 100)) == ((THIN + THICK) / 2, THICK)


def test_an_interval_is_drawn_on_its_side_of_nothing() -> None:
    assert "interval-above" in interval(0.1, 0.3, 0.2) and "interval-below" in interval(-0.3, -0.1, -0.2)
    assert "interval-both" in interval(-0.1, 0.3, 0.1)
    assert "interval-both" in interval(0.0, 0.0, 0.0)
