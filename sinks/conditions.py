"""Conditions in ClickHouse's SQL, over every event with the person it belongs to today.

The same answers as `processors.rules`, from the other end: whole histories at rest, at one moment. Names and values
that somebody wrote are parameters of the query, without exception; what stands in the SQL is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from processors.memories import KINDS, MOST_KNOWN, MOST_OF_SEQUENCE
from processors.selectors import LARGEST_AMOUNT, OF_PAGE, UNIT, Selector, selector_of
from processors.values import LONGEST_TEXT, MOST_IN_LIST, Zone, lowered
from schemas.conditions import (
    All,
    Any_,
    Attribute,
    Did,
    Duration,
    InSegment,
    Not,
    Op,
    Test,
)
from schemas.conditions import Event as Selected
from schemas.conditions import Sequence as Steps
from schemas.segments import Definition

MOST_DIFFERENCES = 100_000

_KNOWN_AS = (  # `processors.memories.token_of`
    "toInt64(bitShiftLeft(bitShiftRight(reinterpretAsUInt64(reverse(substring(MD5(concat(source, '\\0', message_id)),"
    " 1, 8))), 4), 3))"
)
_AT = "toUnixTimestamp64Milli(timestamp)"
_COLUMNS = {  # of `events`, filled from these paths of the context alone: where one is not empty, something was said
    ("campaign", "source"): "utm_source", ("campaign", "medium"): "utm_medium", ("campaign", "name"): "utm_campaign",
    ("campaign", "term"): "utm_term", ("campaign", "content"): "utm_content", ("ip",): "ip",
    ("userAgent",): "user_agent", ("locale",): "locale", ("timezone",): "timezone", ("library", "name"): "library",
    ("device", "type"): "device_type",
}  # fmt: skip
_NUMBER = r"^-?[0-9]{1,15}(\\.[0-9]{1,6})?$"
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = (
    f"^((?:19|20|21)[0-9]{{2}}-[0-9]{{2}}-[0-9]{{2}})"
    f"(?:[T ]({_CLOCK})(?::([0-5][0-9])(?:\\\\.([0-9]{{3}})[0-9]*)?)?(Z|[+-]{_CLOCK})?)?$"
)


class Query(NamedTuple):
    """SQL, and what its `{name:Type}` stand for."""

    sql: str
    parameters: dict[str, Any]


def people_sql(
    condition: Any, others: Mapping[str, Definition], *, workspace: str, now_ms: int, zone: Zone
) -> Query:  # fmt: skip
    """A query for the keys of the people of whom the condition is true at `now_ms`, as column `person`.

    Args:
        others: the definitions that it may ask for.
    """
    return _Compiler(others, workspace, now_ms, zone).people(condition)


def compared_sql(people: Query, *, workspace: str, name: str) -> Query:
    """One row: how many are in segment `name` live (`members`), how many by the query for its people (`sql_members`),
    and the keys of who is in it by one of the two alone: `missing` live, and `surplus`; at most 100,000 each.
    """
    sql = f"""
SELECT countIf(live) AS members, countIf(by_sql) AS sql_members,
    groupArrayIf({MOST_DIFFERENCES:d})(person, by_sql AND NOT live) AS missing,
    groupArrayIf({MOST_DIFFERENCES:d})(person, live AND NOT by_sql) AS surplus
FROM (
    SELECT person, max(is_live) AS live, max(is_by_sql) AS by_sql FROM (
        SELECT person, 0 AS is_live, 1 AS is_by_sql FROM ({people.sql})
        UNION ALL
        SELECT key AS person, 1 AS is_live, 0 AS is_by_sql FROM memberships FINAL
        WHERE workspace = {{workspace:String}} AND segment = {{segment:String}}
    ) GROUP BY person
)"""  # noqa: S608 - no value is part of the text
    return Query(sql, {**people.parameters, "workspace": workspace, "segment": name})


def preview_sql(people: Query, *, most: int) -> Query:
    """One row: how many people there are, as `people`, and the keys of some, as `sample`; the same ones each time."""
    sql = f"""
SELECT count() AS people, arrayMap(x -> x.2, groupArraySorted({most:d})((cityHash64(person), person))) AS sample
FROM ({people.sql})"""  # noqa: S608 - as above
    return Query(sql, people.parameters)


def listed_sql(keys: Sequence[str], *, workspace: str) -> Query:
    """What the list of people says of some of them, in their order."""
    sql = """
SELECT k.person AS person, l.name AS name, l.email AS email, l.user_id AS user_id, l.last_seen AS last_seen,
    l.orders AS orders, l.revenue AS revenue
FROM (SELECT arrayJoin({keys:Array(String)}) AS person) AS k
LEFT JOIN (SELECT * FROM person_list WHERE workspace = {workspace:String} AND person IN {keys:Array(String)}) AS l
    ON k.person = l.person
ORDER BY indexOf({keys:Array(String)}, person)"""
    return Query(sql, {"keys": list(keys), "workspace": workspace})


def memories_sql(selectors: Sequence[Selector], zone: Zone, keys: Sequence[str] = ()) -> Query:
    """A query for what the memories would hold if they had been kept from the beginning: of everybody, or of some keys.

    Columns: `key`, as events were sent for it, and `m0`, `m1` … for each selector: a list of events (time, token,
    amount), of a word with its values as JSON. `{lot:UInt64}` of `{lots:UInt64}` chooses a part of the keys.
    """
    return _Compiler({}, "", 0, zone).memories(selectors, keys)


class _Compiler:
    """One query.

    Attributes:
        parameters: what stands for names and values.
        columns: what is worked out of a person's events, by its name in the query.
        segments: other segments that are asked for, each after those it asks for itself; aliases: their names.
    """

    def __init__(self, others: Mapping[str, Definition], workspace: str, now_ms: int, zone: Zone) -> None:
        self.others, self.workspace, self.now_ms, self.zone = others, workspace, now_ms, zone
        self.parameters: dict[str, Any] = {}
        self._named: dict[str, str] = {}
        self.columns: dict[str, str] = {}
        self.segments: list[str] = []
        self.aliases: dict[str, str] = {}
        self.needs_people = False

    def people(self, condition: Any) -> Query:
        answer = self.answer(condition)
        columns = "".join(f",\n    {sql} AS {name}" for name, sql in self.columns.items())
        workspace = self.text(self.workspace)
        sections = (
            f"\nLEFT JOIN (SELECT person, sections FROM person_list WHERE workspace = {workspace}) AS l USING person"  # noqa: S608 - names of parameters
            if self.needs_people else ""
        )  # fmt: skip
        segments = f"WITH {', '.join(self.segments)}\n" if self.segments else ""
        sql = (  # what people wrote are parameters
            f"{segments}SELECT person FROM (\nSELECT if(i.person = '', e.key, i.person) AS person{columns}\n"  # noqa: S608
            f"FROM events AS e FINAL\nLEFT JOIN (SELECT key, person FROM identities FINAL\n"
            f"WHERE workspace = {workspace} AND person != key) AS i ON e.key = i.key\n"
            f"WHERE workspace = {workspace}\nGROUP BY person) AS p{sections}\nWHERE {answer}"
        )
        return Query(sql, self.parameters)

    def memories(self, selectors: Sequence[Selector], keys: Sequence[str]) -> Query:
        columns = ",\n    ".join(f"{self._memory(selector)} AS m{place}" for place, selector in enumerate(selectors))
        labels = sorted({kind.did for selector in selectors for kind in selector.kinds})
        words = {selector.word[0] for selector in selectors if selector.word}
        matter = "1" if "context" in words else f"event IN {self._parameter(labels, 'Array(String)')}"
        if "trait" in words:
            matter = f"({matter} OR type = 'identify')"
        if keys:
            matter = f"key IN {self._parameter(list(keys), 'Array(String)')} AND {matter}"
        sql = (
            f"SELECT key,\n    {columns}\nFROM events FINAL\n"
            f"WHERE {matter} AND cityHash64(key) % {{lots:UInt64}} = {{lot:UInt64}}\nGROUP BY key"
        )
        return Query(sql, self.parameters)

    def _memory(self, selector: Selector) -> str:
        if selector.word:
            json, path, newest, said = self._said(selector)
            values = _at_path(f"argMaxIf({json}, {newest}, {said})", path)
            at, known_as = (f"argMaxIf({each}, {newest}, {said})" for each in (_AT, _KNOWN_AS))
            return f"(({at}, {known_as}, 0), {values})"
        told = self._told([self._is(kind) for kind in selector.kinds], selector.amount)
        start = "1" if selector.keeps_first else f"-{selector.most:d}"
        return f"arraySlice(arraySort(groupArrayArray({told})), {start}, {selector.most:d})"

    def _told(self, kinds: Sequence[str], amount: Sequence[str] = ()) -> str:
        """What a row tells a memory: time, token and amount, once for each kind of event that it is."""
        told = ", ".join(f"if({is_one}, {kind:d}, -1)" for kind, is_one in enumerate(kinds))
        worth = self._amount(amount) if amount else "toInt64(0)"
        return f"arrayMap(k -> ({_AT}, {_KNOWN_AS} + k, {worth}), arrayFilter(k -> k >= 0, [{told}]))"

    # --- parameters

    def _parameter(self, value: Any, kind: str) -> str:
        said = f"{kind} {value!r}"
        name = self._named.setdefault(said, f"p{len(self._named)}")
        self.parameters[name] = value
        return f"{{{name}:{kind}}}"

    def text(self, value: str) -> str:
        return self._parameter(value, "String")

    def number(self, value: float) -> str:
        return self._parameter(float(value), "Float64")

    def ms(self, value: int) -> str:
        return self._parameter(value, "Int64")

    def column(self, sql: str) -> str:
        """The name of a column that is worked out of a person's events."""
        for name, known in self.columns.items():
            if known == sql:
                return name
        name = f"c{len(self.columns)}"
        self.columns[name] = sql
        return name

    # --- the tree

    def answer(self, node: Any) -> str:
        match node:
            case All():
                return "(" + " AND ".join(map(self.answer, node.all)) + ")"
            case Any_():
                return "(" + " OR ".join(map(self.answer, node.any)) + ")"
            case Not():
                return f"NOT {self.answer(node.not_)}"
            case InSegment():
                return self._segment(node.segment)
            case Did():
                return self._did(node)
            case Steps():
                return self._steps(node)
            case Attribute():
                self.needs_people = True
                steps = ", ".join(self.text(step) for step in node.attribute.split("."))
                raw = f"JSONExtractRaw(sections, {steps})"
                return self._tested(node, _scalars(f"if(JSONType(sections, {steps}) = 'Array', "
                                                   f"JSONExtractArrayRaw(sections, {steps}), [{raw}])"))  # fmt: skip
            case _:
                selector = selector_of(node, self.zone.name)
                assert selector is not None
                return self._tested(node, self._word(selector))

    def _segment(self, name: str) -> str:
        """Whether she is in another segment: worked out once, however many ask for it by whatever way."""
        if name not in self.others:
            return "0"
        if name not in self.aliases:
            sql = self.answer(self.others[name].when)
            self.aliases[name] = f"s{len(self.aliases)}"
            self.segments.append(f"({sql}) AS {self.aliases[name]}")
        return self.aliases[name]

    # --- time

    def _since_ms(self, duration: Duration) -> str:
        """The last moment that is not in a window, as a parameter."""
        if duration.is_calendar:
            return self.ms(self.zone.days_before_ms(self.now_ms, duration.count) - 1)
        return self.ms(self.now_ms - duration.ms)

    def _in_time(self, leaf: Any, at: str) -> str:
        if leaf.within is not None:
            return f"{at} > {self._since_ms(leaf.within)}"
        if getattr(leaf, "longer_ago", None) is not None:
            return f"{at} <= {self._since_ms(leaf.longer_ago)}"
        if leaf.since is not None:
            return f"{at} >= {self.ms(self.zone.midnight_ms(leaf.since))}"
        return "1"

    # --- events

    def _is(self, event: Selected) -> str:
        """Whether a row of `event_log` is one of these events."""
        tests = [f"event = {self.text(event.did)}"]
        tests += [self._tested(where, self._property(where.property)) for where in event.where]
        return " AND ".join(tests)

    def _did(self, leaf: Did) -> str:
        is_one, at = self._is(Selected(did=leaf.did, where=leaf.where)), _AT
        if leaf.total is not None:
            return self._total(leaf, is_one)
        if leaf.which is not None:
            most = "minIf" if leaf.which == "first" else "maxIf"
            once = self.column(f"countIf({is_one})")
            return f"({once} > 0 AND {self._in_time(leaf, self.column(f'{most}({at}, {is_one})'))})"
        times = self.column(f"countIf({is_one} AND {self._in_time(leaf, at)})")
        if leaf.at_least is not None:
            return f"{times} >= {leaf.at_least:d}"
        if leaf.at_most is not None:
            return f"{times} <= {leaf.at_most:d}"
        if leaf.exactly is not None:
            return f"{times} = {leaf.exactly:d}"
        return f"{times} > 0"

    def _amount(self, path: Sequence[str]) -> str:
        return (
            f"arraySum(x -> assumeNotNull(ifNull(if(abs(x) <= {LARGEST_AMOUNT:d}, toInt64(roundBankers(x * {UNIT:d})), "
            f"0), 0)), arrayMap(x -> {_number_of('x')}, {self._property('.'.join(path))}))"
        )

    def _total(self, leaf: Did, is_one: str) -> str:
        total = leaf.total
        assert total is not None
        told = self._told([is_one], total.of.split("."))
        known = self.column(f"arraySlice(arraySort(groupArrayArray({told})), -{MOST_KNOWN:d})")
        amount = f"arraySum(x -> x.3, arrayFilter(x -> {self._in_time(leaf, 'x.1')}, {known}))"
        limit, sign = (total.at_least, ">=") if total.at_least is not None else (total.less_than, "<")
        assert limit is not None
        return f"{amount} {sign} {self.number(round(limit * UNIT))}"

    def _steps(self, leaf: Steps) -> str:
        steps = leaf.sequence
        kinds = [self._is(Selected(did=step.did, where=step.where)) for step in steps]
        middles = {place: len(steps) + number for number, place in
                   enumerate(place for place, step in enumerate(steps) if step.without is not None)}  # fmt: skip
        kinds += [self._is(step.without) for step in steps if step.without is not None]
        told = self._told(kinds)
        known = self.column(f"arraySlice(arraySort(groupArrayArray({told})), -{MOST_OF_SEQUENCE:d})")

        def of_kind(kind: int) -> str:
            return (
                f"arrayMap(e -> (e.1, intDiv(e.2, {KINDS:d})), arrayFilter(e -> e.2 % {KINDS:d} = {kind:d}, {known}))"
            )

        good = of_kind(0)
        for place in range(1, len(steps)):
            step, earlier = steps[place], of_kind(place - 1)
            before = f"arraySort(arrayFilter(a -> a < b.1, {earlier}))[-1]"
            tests = [f"has({good}, b.2)", "b.2 < b.1", "b.2 != (0, 0)"]
            if step.within is not None:
                tests.append(f"b.1.1 - b.2.1 <= {self.ms(step.within.ms)}")
            if place in middles:
                tests.append(f"NOT arrayExists(c -> c > b.2 AND c < b.1, {of_kind(middles[place])})")
            pairs = f"arrayMap(b -> (b, {before.replace('b.1', 'b')}), {of_kind(place)})"
            good = f"arrayMap(b -> b.1, arrayFilter(b -> {' AND '.join(tests)}, {pairs}))"
        return f"arrayExists(e -> {self._in_time(leaf, 'e.1')}, {good})"

    # --- words

    def _word(self, selector: Selector) -> str:
        """What was last said about a trait, or in the context: a list of values as JSON."""
        json, path, newest, said = self._said(selector)
        return _at_path(self.column(f"argMaxIf({json}, {newest}, {said})"), path)

    def _said(self, selector: Selector) -> tuple[str, Sequence[str], str, str]:
        """Of a row of `events`: where the word stands and by which path, which of two rows is the newer, and whether it
        says anything. To read JSON of every row is what costs, so as much as can be is said without."""
        json, path = "traits" if selector.word[0] == "trait" else "context", selector.word[1:]
        steps = [self.text(step) for step in path]
        said = f"JSONHas({json}, {steps[0]})"
        if selector.word[0] == "trait":
            said = f"type = 'identify' AND {said}"
        elif path in _COLUMNS:
            said = f"({_COLUMNS[path]} != '' OR ({said}))"
        else:  # a key that is not there as it is written may still be there with escapes
            there = " AND ".join(f"position({json}, {step}) > 0" for step in steps[:1])
            said = f"(({there} OR position({json}, '\\\\') > 0) AND {said})"
        # One number: by a pair of them the newest costs three times as much. What a row is known by has 63 bits.
        return json, steps, f"toInt128({_AT}) * 9223372036854775808 + if({said}, {_KNOWN_AS}, 0)", said

    def _property(self, path: str) -> str:
        """The values of a property: a list of values as JSON."""
        names = path.split(".")
        steps = [self._parameter(name.replace("%", "%25"), "Identifier") for name in names]
        value = f"properties.{'.'.join(steps)}"
        whole = f"toJSONString({value})"
        kind = f"dynamicType({value})"
        branches = [f"{kind} IN ('String', 'Int64', 'UInt64', 'Float64', 'Bool'), [ifNull({whole}, '')]",
                    f"startsWith({kind}, 'Array'), JSONExtractArrayRaw(ifNull({whole}, '[]'))"]  # fmt: skip
        for place in range(1, len(steps)):
            several = f"properties.{'.'.join(steps[:place])}"
            members = f"JSONExtractArrayRaw(ifNull(toJSONString({several}), '[]'))"
            rest = ", ".join(self.text(name) for name in names[place:])
            branches.append(f"startsWith(dynamicType({several}), 'Array') AND {_are_objects(members)}, "
                            f"arrayMap(m -> JSONExtractRaw(m, {rest}), {members})")  # fmt: skip
        values = _scalars(f"multiIf({', '.join(branches)}, [])")
        if len(names) == 1 and names[0] in OF_PAGE:
            return f"if(type IN ('page', 'screen') AND {names[0]} != '', [toJSONString({names[0]})], {values})"
        return values

    # --- tests

    def _tested(self, test: Test, values: str) -> str:
        op, value, is_turned = test.asked
        exists = f"arrayExists(x -> {self._passes(op, value)}, {values})"
        return f"NOT {exists}" if is_turned else exists

    def _passes(self, op: Op, value: Any) -> str:
        """Whether one value passes: `x`, as JSON."""
        match op:
            case Op.EXISTS:
                return "1"
            case Op.IS:
                return self._is_value(value)
            case Op.ONE_OF:
                texts = [each for each in value if isinstance(each, str)]
                others = [self._is_value(each) for each in value if not isinstance(each, str)]
                some = [f"({_IS_TEXT} AND {_TEXT} IN {self._parameter(texts, 'Array(String)')})"] if texts else []
                return f"({' OR '.join(some + others)})"
            case Op.CONTAINS:
                return f"({_IS_TEXT} AND position({_LOWERED}, {self.text(lowered(value))}) > 0)"
            case Op.STARTS_WITH:
                return f"({_IS_TEXT} AND startsWith({_LOWERED}, {self.text(lowered(value))}))"
            case Op.ENDS_WITH:
                return f"({_IS_TEXT} AND endsWith({_LOWERED}, {self.text(lowered(value))}))"
            case Op.BETWEEN:
                low, high = (self.number(each) for each in value)
                return f"ifNull({_number_of('x')} BETWEEN {low} AND {high}, 0)"
            case Op.AT_LEAST | Op.AT_MOST | Op.MORE_THAN | Op.LESS_THAN:
                return f"ifNull({_number_of('x')} {_SIGNS[op]} {self.number(value)}, 0)"
            case Op.BEFORE | Op.SINCE:
                sign = "<" if op is Op.BEFORE else ">="
                return f"ifNull({self._time_of('x')} {sign} {self.ms(self.zone.midnight_ms(value))}, 0)"
            case Op.WITHIN:
                at, since, now = self._time_of("x"), self._since_ms(value), self.ms(self.now_ms)
                return f"ifNull({at} > {since} AND {at} <= {now}, 0)"
            case Op.LONGER_AGO:
                return f"ifNull({self._time_of('x')} <= {self._since_ms(value)}, 0)"

    def _is_value(self, value: bool | int | float | str) -> str:
        if isinstance(value, bool):
            return f"x = '{'true' if value else 'false'}'"
        if isinstance(value, str):
            return f"({_IS_TEXT} AND {_TEXT} = {self.text(value)})"
        return f"ifNull({_number_of('x')} = {self.number(value)}, 0)"

    def _time_of(self, x: str) -> str:
        """The moment that a value means, in ms; NULL where it means none."""
        text = f"JSONExtractString({x})"
        group: Callable[[int], str] = lambda n: f"extractGroups({text}, '{_TIME}')[{n}]"  # noqa: E731
        clock, seconds, fraction = (
            f"if({group(n)} = '', '{default}', {group(n)})" for n, default in ((2, "00:00"), (3, "00"), (4, "000"))
        )
        local = f"concat({group(1)}, ' ', {clock}, ':', {seconds}, '.', {fraction})"
        offset = (
            f"if({group(5)} IN ('', 'Z'), 0, (toInt64OrZero(substring({group(5)}, 2, 2)) * 60 + "
            f"toInt64OrZero(substring({group(5)}, 5, 2))) * if(startsWith({group(5)}, '-'), -60000, 60000))"
        )
        zone = self.text(self.zone.name)
        as_utc = f"toUnixTimestamp64Milli(toDateTime64OrNull({local}, 3, 'UTC'))"
        # A time that clocks leave out when they are put forward is as long after the one before as it says; as Python.
        # ClickHouse may count it back from the one after; and where midnight is left out, whole days begin with it.
        here = (
            "arrayMap((h, u) -> toUnixTimestamp64Milli(h) + greatest(0, u - toUnixTimestamp64Milli(h) - "
            f"timezoneOffset(h) * 1000), [toDateTime64OrNull({local}, 3, {zone})], [{as_utc}])[1]"
        )
        there = f"{as_utc} - {offset}"
        is_day = f"toString(toDate32OrNull({group(1)})) = {group(1)}"  # 30 February is read as 2 March
        return (
            f"if(startsWith({x}, '\"') AND match({text}, '{_TIME}') AND {is_day}, "
            f"if({group(5)} = '', {here}, {there}), NULL)"
        )


_SIGNS = {Op.AT_LEAST: ">=", Op.AT_MOST: "<=", Op.MORE_THAN: ">", Op.LESS_THAN: "<"}
_IS_TEXT = "startsWith(x, '\"')"
_TEXT = "JSONExtractString(x)"
_LOWERED = f"replaceAll(lowerUTF8(substringUTF8({_TEXT}, 1, {LONGEST_TEXT:d})), 'ς', 'σ')"


def _number_of(x: str) -> str:
    """The number that a value is, or its text says; NULL where it is none."""
    text = f"JSONExtractString({x})"
    return (
        f"multiIf(startsWith({x}, '\"'), if(match({text}, '{_NUMBER}'), toFloat64OrNull({text}), NULL), "
        f"{x} IN ('true', 'false'), NULL, toFloat64OrNull({x}))"
    )


def _scalars(values: str) -> str:
    """Of a list of values as JSON the texts, numbers and truths."""
    scalars = f"arrayFilter(x -> x NOT IN ('', 'null') AND NOT match(x, '^[\\\\[{{]'), {values})"
    return f"arraySlice({scalars}, 1, {MOST_IN_LIST:d})"


def _are_objects(members: str) -> str:
    return f"arrayAll(m -> startsWith(m, '{{'), {members})"


def _at_path(json: str, steps: Sequence[str]) -> str:
    """The values at a path in JSON text: a list of values as JSON."""
    path = ", ".join(steps)
    branches = [f"JSONType({json}, {path}) = 'Array', JSONExtractArrayRaw({json}, {path})"]
    for place in range(1, len(steps)):
        first, rest = ", ".join(steps[:place]), ", ".join(steps[place:])
        members = f"JSONExtractArrayRaw({json}, {first})"
        branches.append(
            f"JSONType({json}, {first}) = 'Array' AND {_are_objects(members)}, "
            f"arrayMap(m -> JSONExtractRaw(m, {rest}), {members})"
        )
    return _scalars(f"multiIf({', '.join(branches)}, [JSONExtractRaw({json}, {path})])")
