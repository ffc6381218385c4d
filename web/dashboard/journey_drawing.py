"""A journey as its page shows it: each step and each way, with what is said of it and how many went there."""

from __future__ import annotations

from typing import NamedTuple

from config.journey_graph import Way
from schemas.journey_sentences import entry_sentences, share, step_sentence
from schemas.journeys import BranchStep, GoStep, JourneyFile, SendStep, SplitStep, WaitUntilStep, kind_of
from schemas.sentences import sentence_of
from web.dashboard.journey_graph import ENTER, HELD_OUT, MOST_CASES, Edge, Node, graph_of, thickness
from web.dashboard.language import Language
from web.dashboard.queries.journeys import Flow, Stop


class DrawnWay(NamedTuple):
    """A way, with what it is called and how many went it. `says`: of whom it is true, where a branch asks."""

    edge: Edge
    label: str
    says: str
    went: int | None
    thickness: float

    @property
    def way(self) -> Way:
        return self.edge.way


class DrawnStep(NamedTuple):
    """A step, or the entry.

    Attributes:
        kind: as `kind_of` says, or `enter`.
        cases: of a branch: the number and the condition of each that has room.
        ways: that lead on.
    """

    node: Node
    kind: str
    sentence: str
    cases: list[tuple[int, str]]
    stop: Stop
    ways: list[DrawnWay]

    @property
    def name(self) -> str:
        return self.node.name


class Drawn(NamedTuple):
    width: float
    height: float
    nodes: list[DrawnStep]
    edges: list[DrawnWay]


def draw(said: JourneyFile, flow: Flow, language: Language) -> Drawn:
    """A version of a journey, with how people went through it."""
    graph = graph_of(said)
    steps = {step.step: step for step in said.steps}
    ways = [_way(said, edge, flow, language) for edge in graph.edges]
    nodes = []
    for node in graph.nodes:
        leaving = [way for way in ways if way.way.step == node.name]
        if node.name == ENTER:
            sentence, kind = entry_sentences(said, language.code)[0], "enter"
            nodes.append(DrawnStep(node, kind, sentence, [], flow.stops[ENTER], leaving))
            continue
        step = steps[node.name]
        cases = _cases(step, language) if isinstance(step, BranchStep) else []
        nodes.append(DrawnStep(node, kind_of(step), step_sentence(step, language.code), cases,
                               flow.stops[step.step], leaving))  # fmt: skip
    return Drawn(graph.width, graph.height, nodes, ways)


def _way(said: JourneyFile, edge: Edge, flow: Flow, language: Language) -> DrawnWay:
    way, went, says = edge.way, flow.went[edge.way], ""
    step = next((step for step in said.steps if step.step == way.step), None)
    if isinstance(step, BranchStep) and way.path[0] == "branch":
        says = sentence_of(step.branch[int(way.path[1])].when, language.code)
    return DrawnWay(edge, label_of(said, way, language), says, went, thickness(went, flow.most))


def _cases(step: BranchStep, language: Language) -> list[tuple[int, str]]:
    """The first of them; where there are more, the place of the last says so."""
    found = [(number, sentence_of(case.when, language.code)) for number, case in enumerate(step.branch, 1)]
    if len(found) > MOST_CASES:
        found[MOST_CASES - 1 :] = [(MOST_CASES, "…")]
    return found


def label_of(said: JourneyFile, way: Way, language: Language) -> str:
    """What a way is called; nothing where a step has but one."""
    if way.step == ENTER:
        return language.text("way.held_out") if way.path == HELD_OUT else ""
    step = next(step for step in said.steps if step.step == way.step)
    match way.path:
        case ("branch", int(number), _):
            return language.text("way.case", number=number + 1)
        case ("split", int(number), _):
            assert isinstance(step, SplitStep)
            return share(step, step.split[number].then)
        case ("refused",):
            return language.text("way.refused")
        case ("otherwise",):
            return language.text("way.timed_out")
        case ("go",) if isinstance(step, GoStep) and step.times is not None:
            return language.text("way.again")
        case ("then",):
            return _then(step, way, language)
    return ""


def _then(step: object, way: Way, language: Language) -> str:
    if isinstance(step, BranchStep):
        return language.text("way.else")
    if isinstance(step, WaitUntilStep) and step.otherwise not in (None, way.to):
        return language.text("way.happened")
    if isinstance(step, SendStep) and step.refused not in (None, way.to):
        return language.text("way.allowed")
    if isinstance(step, GoStep):
        return language.text("way.no_more")
    return ""


