"""What of Jinja2 a template may use, what that may cost, and where in HTML it may put what people said.

Whoever writes a template is trusted with words, not with the machine; what is filled in was said by strangers. Jinja's
sandbox forbids some names and stops no `"x"|center(10**9)`. So a template is parsed and walked before it is compiled:
only nodes and filters named here pass, nothing is called, loops are two deep and 100 rounds long, and the work that
the text can cause at most is added up and bounded. Values are plain data, and a dot asks for a key and nothing else.

What is missing is printed nowhere: the one who asks for it says what stands in its place (`default`), asks for it in an
`if`, or the message is not sent. JSON alone has a word for it, and `json` writes that. See docs/templates.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache, wraps
from html import unescape
from typing import Any, NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
from babel import Locale as Babel
from babel import UnknownLocaleError, dates, numbers
from jinja2 import Environment, TemplateSyntaxError, Undefined, nodes
from jinja2.runtime import LoopContext

from schemas.errors import TidewireError, shown

LONGEST_SOURCE = 100_000  # characters of one part
LARGEST = 512 * 1024  # characters that one part may become
MOST_ROUNDS = 100  # of one loop
DEEPEST = 2  # loops in loops
MOST_WORK = 2_000_000  # nodes, each as often as loops can come to it
LONGEST_ARGUMENT = 1_000  # characters
MOST_DIGITS = 10
LONGEST_VALUE = 10_000  # characters, or entries, that a filter goes over

LOOP = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})
TESTS = ("defined", "undefined", "odd", "even", "number", "string")

_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.If,
    nodes.For, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.CondExpr, nodes.Filter, nodes.Test,
    nodes.List, nodes.Tuple, nodes.Keyword,
)  # fmt: skip
_WORDS = {
    "Call": "calls something", "Include": "includes another template", "Extends": "extends another template",
    "Import": "imports another template", "FromImport": "imports another template", "Macro": "defines a macro",
    "CallBlock": "calls a macro", "Block": "defines a block", "Assign": "sets a name", "AssignBlock": "sets a name",
    "FilterBlock": "filters a block", "Concat": "joins text with ~", "Slice": "takes a slice",
    "Dict": "makes a mapping",
}  # fmt: skip


class WrongTemplate(TidewireError):
    """A template cannot be what it says. `line` is that of its text, from 1."""

    def __init__(self, line: int, what: str, mend: str = "") -> None:
        self.line, self.what, self.mend = line, what, mend
        super().__init__(f"line {line}: {what}" + (f" {mend}" if mend else ""))


class CannotFill(TidewireError):
    """A template is right, but of this person something is missing or is not what it must be: she is sent nothing."""


class _Missing(Undefined):
    """What nobody said. It is not true, equal to nothing and less than nothing; what is asked of it is missing too."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __eq__(self, other: object) -> bool:
        return False

    __lt__ = __le__ = __gt__ = __ge__ = __eq__  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


_MISSING = _Missing()


def is_missing(value: object) -> bool:
    """Whether there is nothing to print: no such key, null, or an empty text."""
    return value is None or value == "" or isinstance(value, Undefined)


class _Plain(Environment):
    """Jinja over plain data: a dot or brackets ask for a key of a mapping or a place of a list, never for an attribute
    of an object."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        with suppress(LookupError, TypeError):
            if isinstance(obj, Mapping) or (isinstance(obj, list) and type(argument) is int):
                return obj[argument]
        if isinstance(obj, LoopContext) and argument in LOOP:
            return getattr(obj, argument)
        return _MISSING


class Locale(NamedTuple):
    """How numbers, money and days are written: a language such as `en`, `zh` or `de`, and the zone of days."""

    language: str
    zone: str


class Part:
    """A template of one text, compiled.

    Attributes:
        asked: what it asks for, such as `profile.name`, with the line: names that loops give are left out.
    """

    def __init__(self, template: Any, asked: Mapping[str, int]) -> None:
        self._template = template
        self.asked = asked

    def fill(self, values: Mapping[str, Any]) -> str:
        """The text for one person.

        Raises:
            CannotFill: something is missing, or not of its kind; or the text becomes too long.
        """
        pieces, size = [], 0
        try:
            for piece in self._template.generate(dict(values)):
                size += len(piece)
                if size > LARGEST:
                    raise CannotFill(f"it becomes longer than {LARGEST // 1024} kB.")
                pieces.append(piece)
        except TypeError as error:  # such as "gold" > 3
            raise CannotFill(f"two values of different kinds are compared: {error}.") from None
        except (ArithmeticError, ValueError) as error:  # such as a day before the year 1, by the clock of the zone
            raise CannotFill(f"a value is beyond what can be written: {error}.") from None
        return "".join(pieces)


def compile_part(source: str, locale: Locale, *, is_html: bool = False, is_json: bool = False) -> Part:
    """Check a template and compile it. In HTML whatever is filled in is escaped; into JSON it is written as JSON.

    Raises:
        WrongTemplate: it is none, uses what none may use, could cost too much, or puts values where HTML has no
            quotes around them, or JSON has no values.
    """
    if len(source) > LONGEST_SOURCE:
        raise WrongTemplate(1, f"has {len(source):,} characters; at most {LONGEST_SOURCE:,}.")
    try:
        environment = _environment(locale, is_html)
        tree = environment.parse(_without_tag_lines(source))
        asked: dict[str, int] = {}
        work = _Gate(asked).walk(tree)
        if work > MOST_WORK:
            raise WrongTemplate(1, f"could cost {work:,} steps; at most {MOST_WORK:,}.", "Put less into its loops.")
        addresses = _places(tree) if is_html else set[int]()
        if is_json:
            _check_json(tree)
        return Part(environment.from_string(_guarded(tree, addresses)), asked)
    except TemplateSyntaxError as error:
        raise WrongTemplate(error.lineno or 1, f"{error.message}.") from None
    except UnknownLocaleError:
        raise WrongTemplate(1, f'"{locale.language}" is no language that is known.',
                            "Write its code, such as en, zh or pt_BR.") from None  # fmt: skip
    except (RecursionError, ValueError, OverflowError, MemoryError) as error:
        raise WrongTemplate(1, f"cannot be read: {error}.", "Nest less, and write smaller numbers.") from None


_TAG_LINE = re.compile(r"\{#[\s\S]*?#\}|^[ \t]*(\{%(?:(?!%\}|\{%).)*%\})[ \t]*\n", re.MULTILINE)
_RAW_TAG = re.compile(r"\{%[-+]?\s*raw\b")


def _without_tag_lines(source: str) -> str:
    """A line that holds one tag and nothing else leaves no empty line behind; Jinja's own `trim_blocks` takes the end
    of a line away from text before a tag, too. All lines keep their numbers.

    >>> _without_tag_lines("{% if a %}\\nyes {% endif %}\\n")
    '{% if a %}{#\\n#}yes {% endif %}\\n'
    """
    if found := _RAW_TAG.search(source):
        raise WrongTemplate(source.count("\n", 0, found.start()) + 1, "uses raw, which templates may not.")
    return _TAG_LINE.sub(lambda found: f"{found[1]}{{#\n#}}" if found[1] else found[0], source)


@lru_cache(64)
def _environment(locale: Locale, is_html: bool) -> _Plain:
    environment = _Plain(autoescape=is_html, undefined=_Missing, optimized=False, cache_size=0,
                         keep_trailing_newline=False)
    environment.globals.clear()
    environment.filters.clear()
    environment.filters.update(filters(locale))
    environment.filters.update({_PRINT: _printed, _ADDRESS: _address, _ROUNDS: _rounds})
    environment.tests = {name: test for name, test in environment.tests.items() if name in TESTS}
    environment.tests["defined"] = lambda value: not is_missing(value)
    environment.tests["undefined"] = is_missing
    return environment


# --- the gate


class _Gate:
    """Walks a template, and adds up what it can cost at most."""

    def __init__(self, asked: dict[str, int]) -> None:
        self._asked = asked

    def walk(self, node: nodes.Node, rounds: int = 1, depth: int = 0, given: frozenset[str] = frozenset()) -> int:
        """The work of a node: how many nodes it has, each as often as it can be come to."""
        kind = type(node).__name__
        if not isinstance(node, _NODES):
            what = _WORDS.get(kind, f"uses {kind}")
            raise WrongTemplate(node.lineno or 1, f"{what}, which templates may not.", "See docs/templates.md.")
        if isinstance(node, nodes.For):
            return self._loop(node, rounds, depth, given)
        self._check(node)
        path = _path_of(node)
        if path and path.partition(".")[0] not in given:
            self._asked.setdefault(path, node.lineno)
            given = given | {path.partition(".")[0]}  # the whole of it is noted, not its steps
        return rounds + sum(self.walk(child, rounds, depth, given) for child in node.iter_child_nodes())

    def _loop(self, node: nodes.For, rounds: int, depth: int, given: frozenset[str]) -> int:
        if depth == DEEPEST:
            raise WrongTemplate(node.lineno, f"has more than {DEEPEST} loops within each other.")
        if node.recursive:
            raise WrongTemplate(node.lineno, "has a loop that calls itself, which templates may not.")
        own = given | {name.name for name in node.target.find_all(nodes.Name)} | {"loop"}
        if isinstance(node.target, nodes.Name):
            own |= {node.target.name}
        once = self.walk(node.iter, rounds, depth, given) + self._all(node.else_, rounds, depth, given)
        inner = [*node.body, *([node.test] if node.test is not None else [])]
        return once + self._all(inner, rounds * MOST_ROUNDS, depth + 1, own)

    def _all(self, some: Sequence[nodes.Node], rounds: int, depth: int, given: frozenset[str]) -> int:
        return sum(self.walk(each, rounds, depth, given) for each in some)

    def _check(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Filter):
            if node.name not in FILTERS or node.node is None:
                raise WrongTemplate(node.lineno, f'there is no filter "{node.name}".',
                                    f"Filters: {', '.join(FILTERS)}.")  # fmt: skip
            takes = FILTERS[node.name]
            if node.kwargs or node.dyn_args or node.dyn_kwargs or not takes.least <= len(node.args) <= takes.most:
                wants = f"{takes.least}" if takes.least == takes.most else f"{takes.least} to {takes.most}"
                raise WrongTemplate(node.lineno, f'filter "{node.name}" takes {wants} arguments without names.')
            for argument in node.args if takes.what else ():
                self._check_argument(node, argument, takes)
        elif isinstance(node, nodes.Test):
            if node.name not in TESTS or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
                raise WrongTemplate(node.lineno, f'there is no test "{node.name}" of that form.',
                                    f"Tests: {', '.join(TESTS)}.")  # fmt: skip
        elif (name := _name_in(node)).startswith("_") or name in _OF_JINJA:
            raise WrongTemplate(node.lineno, f'asks for "{name}", which nobody has.')
        elif isinstance(node, nodes.Const) and isinstance(node.value, str) and len(node.value) > LONGEST_ARGUMENT:
            raise WrongTemplate(node.lineno, f"has a text of {len(node.value):,} characters within an expression.")

    @staticmethod
    def _check_argument(node: nodes.Filter, argument: nodes.Expr, takes: Takes) -> None:
        if not isinstance(argument, nodes.Const):
            raise WrongTemplate(node.lineno, f'filter "{node.name}" takes what is written out, no value of a person.')
        if not takes.may_be(argument.value):
            raise WrongTemplate(node.lineno,
                                f'filter "{node.name}" takes {takes.what}; got {shown(argument.value)}.')  # fmt: skip


_OF_JINJA = frozenset({"self", "caller", "varargs", "kwargs"})


def _name_in(node: nodes.Node) -> str:
    """What a single step asks for; empty for all else."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return node.attr
    return str(node.arg.value) if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) else ""


def _path_of(node: nodes.Node) -> str:
    """What a chain of names asks for, such as `orders.recent.0.total`; empty for all else."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        before = _path_of(node.node)
        return before and f"{before}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        before = _path_of(node.node)
        return before and f"{before}.{node.arg.value}"
    return ""


_PRINT, _ADDRESS, _ROUNDS = "_print", "_address", "_rounds"  # filters that nobody can write: FILTERS does not name them


def _guarded(tree: nodes.Template, addresses: set[int]) -> nodes.Template:
    """What is printed goes through a check, and so does what loops go over. `addresses`: see `_places`."""
    for output in tree.find_all(nodes.Output):
        output.nodes = [
            each if isinstance(each, nodes.TemplateData)
            else _through(_ADDRESS if id(each) in addresses else _PRINT, each) for each in output.nodes
        ]  # fmt: skip
    for loop in tree.find_all(nodes.For):
        loop.iter = _through(_ROUNDS, loop.iter)
    return tree


def _through(name: str, expression: nodes.Node) -> nodes.Filter:
    said = [nodes.Const(_said(expression)), nodes.Const(expression.lineno)]
    return nodes.Filter(expression, name, said, [], None, None, lineno=expression.lineno)


def _said(node: nodes.Node) -> str:
    """An expression in the words of its writer, as near as matters."""
    path = _path_of(node)
    if path or not isinstance(node, nodes.Filter) or node.node is None:
        return path or "an expression"
    return _said(node.node)


def _printed(value: Any, said: str, line: int) -> Any:
    if is_missing(value):
        mend = "" if said == "an expression" else f" Say what stands in its place: {{{{ {said} | default(\"…\") }}}}."
        raise CannotFill(f"line {line}: {said} is missing.{mend}")
    if isinstance(value, bool | Mapping | list | tuple):
        kind = "true or false" if isinstance(value, bool) else "several values"
        raise CannotFill(f"line {line}: {said} is {kind}, not one text or number.")
    return value


def _rounds(value: Any, said: str, line: int) -> Sequence[Any]:
    if isinstance(value, Undefined) or value is None:
        raise CannotFill(f"line {line}: {said} is missing. Ask for it first: {{% if {said} %}}.")
    if not isinstance(value, list | tuple):
        raise CannotFill(f"line {line}: {said} is no list.")
    if len(value) > MOST_ROUNDS:
        raise CannotFill(f"line {line}: {said} has {len(value):,} entries, a loop goes over {MOST_ROUNDS}. "
                         f"Take some: {said} | limit(10).")  # fmt: skip
    return value


# --- filters

_DATES = ("short", "medium", "long", "full")


class Takes(NamedTuple):
    """How many arguments a filter takes, and of which kind; of no kind: another value may stand in."""

    least: int = 0
    most: int = 0
    what: str = ""
    may_be: Callable[[Any], bool] = bool


def _upto(most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value <= most


_FORM = f"one of {', '.join(_DATES)}", lambda value: value in _DATES
FILTERS: Mapping[str, Takes] = {
    "capitalize": Takes(),
    "date": Takes(0, 1, *_FORM),
    "default": Takes(1, 1),
    "first": Takes(),
    "items": Takes(),
    "join": Takes(0, 1, "a text", lambda value: isinstance(value, str)),
    "json": Takes(),
    "last": Takes(),
    "length": Takes(),
    "limit": Takes(1, 1, f"a number up to {LONGEST_ARGUMENT:,}", _upto(LONGEST_ARGUMENT)),
    "lower": Takes(),
    "money": Takes(1, 1, "a currency, such as 'EUR'", lambda value: bool(re.fullmatch("[A-Z]{3}", str(value)))),
    "number": Takes(0, 1, f"a number of digits up to {MOST_DIGITS}", _upto(MOST_DIGITS)),
    "time": Takes(0, 1, *_FORM),
    "title": Takes(),
    "trim": Takes(),
    "truncate": Takes(1, 1, f"a number up to {LONGEST_ARGUMENT:,}", _upto(LONGEST_ARGUMENT)),
    "upper": Takes(),
    "urlencode": Takes(),
}


def filters(locale: Locale) -> dict[str, Callable[..., Any]]:
    """Those of FILTERS. What is missing stays missing, through all but `default` and `json`."""
    zone: tzinfo = ZoneInfo(locale.zone)
    Babel.parse(locale.language)

    def money(value: Any, currency: str) -> str:
        return str(numbers.format_currency(_number(value), currency, locale=locale.language))

    def number(value: Any, digits: int | None = None) -> str:
        pattern = "#,##0.###" if digits is None else "#,##0" + ("." + "0" * digits if digits else "")
        return str(numbers.format_decimal(_number(value), pattern, locale=locale.language))

    def date(value: Any, form: str = "long") -> str:
        return str(dates.format_date(_moment(value).astimezone(zone).date(), form, locale=locale.language))

    def time(value: Any, form: str = "short") -> str:
        return str(dates.format_time(_moment(value), form, tzinfo=zone, locale=locale.language))

    plain: dict[str, Callable[..., Any]] = {
        "capitalize": lambda value: _text(value).capitalize(),
        "date": date,
        "first": lambda value: next(iter(_listed(value)), _MISSING),
        "items": lambda value: [list(pair) for pair in _mapping(value).items()],
        "join": lambda value, between=", ": between.join(_text(each) for each in _listed(value)),
        "last": lambda value: next(reversed(_listed(value)), _MISSING),
        "length": lambda value: len(value) if isinstance(value, str | list | tuple | Mapping) else _no(value, "a list"),
        "limit": lambda value, most: list(_listed(value))[:most],
        "lower": lambda value: _text(value).lower(),
        "money": money,
        "number": number,
        "time": time,
        "title": lambda value: _text(value).title(),
        "trim": lambda value: _text(value).strip(),
        "truncate": lambda value, most: _cut(_text(value), most),
        "upper": lambda value: _text(value).upper(),
        "urlencode": lambda value: quote(_text(value), safe=""),
    }  # fmt: skip
    return {name: _passing(each) for name, each in plain.items()} | {
        "default": lambda value, instead: instead if is_missing(value) else value,
        "json": _json,
    }


def _passing(work: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(work)
    def passing(value: Any, *arguments: Any) -> Any:
        return _MISSING if is_missing(value) else work(value, *arguments)

    return passing


def _text(value: Any) -> str:
    if isinstance(value, bool | Mapping | list | tuple):
        _no(value, "a text or a number")
    if isinstance(value, str):
        _bounded(value)
    return str(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


def _listed(value: Any) -> Sequence[Any]:
    listed: Sequence[Any] = value if isinstance(value, list | tuple) else _no(value, "a list")
    _bounded(listed)
    return listed


def _bounded(value: Sequence[Any]) -> None:
    """What filters go over takes as long as it is, in every round of a loop."""
    if len(value) > LONGEST_VALUE:
        raise CannotFill(f"{shown(value)} has a length of {len(value):,}; filters take at most {LONGEST_VALUE:,}.")


def _json(value: Any) -> str:
    """Any value as JSON, in ASCII, and so that it also ends no tag and no quotes of HTML; what is missing as `null`."""
    try:
        written = msgspec.json.encode(None if isinstance(value, Undefined) else value).decode()
    except (RecursionError, TypeError):  # nested too deeply, or the loop itself
        return str(_no(value, "a value that can be written as JSON"))
    _bounded(written)
    return _NOT_IN_JSON.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _utf16(found[0])), written)


_NOT_IN_JSON = re.compile(r"[^\x20-\x7e]|[<>&']")


def _utf16(character: str) -> Sequence[int]:
    units = character.encode("utf-16-be")
    return [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else _no(value, "a mapping")


def _number(value: Any) -> Decimal:
    with suppress(InvalidOperation, ValueError, TypeError):
        if not isinstance(value, bool | float) or (isinstance(value, float) and math.isfinite(value)):
            found = Decimal(str(value)) if not isinstance(value, bool) else Decimal("NaN")
            if found.is_finite() and abs(found.adjusted()) < 40:
                return found
    return _no(value, "a number")  # type: ignore[no-any-return]


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        with suppress(msgspec.ValidationError, OverflowError, ValueError):
            value = msgspec.convert(value if "T" in value or " " in value else f"{value}T12:00:00Z", datetime)
    if not isinstance(value, datetime):
        _no(value, "a time")
    moment: datetime = value
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _no(value: Any, what: str) -> Any:
    raise CannotFill(f"{shown(value)} is not {what}.")


# --- HTML

_RAW = frozenset({"style", "title", "textarea"})  # what stands in them is text, tags too
_NO_TAGS = frozenset({
    "applet", "base", "embed", "form", "frame", "frameset", "iframe", "link", "math", "noembed", "noframes", "noscript",
    "object", "plaintext", "script", "svg", "template", "xmp",
})  # fmt: skip
_ADDRESSES = frozenset({"action", "background", "cite", "data", "formaction", "href", "longdesc", "poster", "src"})
_NO_ATTRIBUTES = frozenset({"http-equiv", "srcdoc", "srcset", "ping"})
_SCHEMES = ("https://", "http://", "mailto:", "tel:", "sms:", "cid:", "#")
_SPACE = " \t\n\r\f"
_MEND = "Values may stand in text, and in attributes in quotes."
_NO_VALUES = {
    "open": "right behind a <", "name": "in the name of a tag", "close": "in the name of a tag",
    "tag": "in a tag outside of quotes", "attribute": "in the name of an attribute",
    "after": "in a tag outside of quotes", "before": "in an attribute without quotes",
    "bare": "in an attribute without quotes", "comment": "in a comment", "declaration": "in a declaration",
}  # fmt: skip


class _Html:
    """Where in HTML one is, as a browser sees it: what may be filled in depends on it.

    Attributes:
        place: `text`, `raw` (in a tag of _RAW), a key of _NO_VALUES, or the quote around the value of an attribute.
        tag, attribute: which; empty where there is none.
        seen: of a name or the end of a comment, what was read so far.
        has_begun: the value of the attribute has.
    """

    def __init__(self) -> None:
        self.place, self.tag, self.attribute, self.seen, self.has_begun = "text", "", "", "", False

    @property
    def here(self) -> tuple[str, str, str, str, bool]:
        return self.place, self.tag, self.attribute, self.seen, self.has_begun

    @here.setter
    def here(self, place: tuple[str, str, str, str, bool]) -> None:
        self.place, self.tag, self.attribute, self.seen, self.has_begun = place

    def fill(self, line: int) -> bool:
        """A value stands here. Returns whether an address begins with it.

        Raises:
            WrongTemplate: it may not.
        """
        where = _NO_VALUES.get(self.place, "")
        if self.place == "raw" and self.tag == "style":
            where = "in <style>"
        elif self.attribute == "style":
            where = 'in the attribute "style"'
        if where:
            raise WrongTemplate(line, f"fills in a value {where}.", _MEND)
        begins = self.attribute in _ADDRESSES and not self.has_begun
        self.has_begun = self.has_begun or bool(self.attribute)
        return begins

    def read(self, data: str, line: int) -> None:
        """Go on over what is written."""
        for at, character in enumerate(data):
            if character == "\n":
                line += 1
            getattr(self, f"_{_STEPS.get(self.place, 'value')}")(character, data, at, line)

    def _text(self, character: str, data: str, at: int, line: int) -> None:
        if character == "<":
            self.place = "open"

    def _open(self, character: str, data: str, at: int, line: int) -> None:
        if character.isascii() and character.isalpha():
            self.place, self.seen = "name", character.lower()
        elif character == "/":
            self.place = "close"
        elif character in "!?":
            self.place, self.seen = ("comment" if data.startswith("!--", at) else "declaration"), ""
        elif character != "<":
            self.place = "text"

    def _close(self, character: str, data: str, at: int, line: int) -> None:
        if character == ">":
            self.place, self.tag = "text", ""

    _declaration = _close

    def _comment(self, character: str, data: str, at: int, line: int) -> None:
        self.seen = (self.seen + character)[-4:]
        if self.seen.endswith(("-->", "--!>")):
            self.place, self.seen = "text", ""

    def _name(self, character: str, data: str, at: int, line: int) -> None:
        if character not in _SPACE + "/>":
            self.seen += character.lower()
            return
        self.tag, self.seen = self.seen, ""
        if self.tag in _NO_TAGS:
            raise WrongTemplate(line, f"has a tag <{self.tag}>, which mails may not.")
        self.place = "tag"
        self._tag(character, data, at, line)

    def _tag(self, character: str, data: str, at: int, line: int) -> None:
        if character == ">":
            is_raw = self.tag in _RAW
            self.place, self.tag, self.attribute = ("raw", self.tag, "") if is_raw else ("text", "", "")
        elif character not in _SPACE + "/":
            self.place, self.seen = "attribute", character.lower()

    def _attribute(self, character: str, data: str, at: int, line: int) -> None:
        if character not in _SPACE + "/>=":
            self.seen += character.lower()
            return
        self.attribute, self.seen, self.has_begun = self.seen, "", False
        if self.attribute.startswith("on") or self.attribute in _NO_ATTRIBUTES:
            raise WrongTemplate(line, f'has an attribute "{self.attribute}", which mails may not.')
        self.place = "after"
        self._after(character, data, at, line)

    def _after(self, character: str, data: str, at: int, line: int) -> None:
        if character == "=":
            self.place = "before"
        elif character not in _SPACE:
            self.place, self.attribute = "tag", ""
            self._tag(character, data, at, line)

    def _before(self, character: str, data: str, at: int, line: int) -> None:
        if character in "\"'":
            self.place = character
        elif character == ">":
            self.place, self.attribute = "tag", ""
            self._tag(character, data, at, line)
        elif character not in _SPACE:
            self.place = "bare"
            self._value(character, data, at, line)

    def _value(self, character: str, data: str, at: int, line: int) -> None:
        ends = _SPACE + ">" if self.place == "bare" else self.place
        if character in ends:
            if self.attribute in _ADDRESSES and not self.has_begun:
                raise WrongTemplate(line, f'has an empty attribute "{self.attribute}".')
            bare, self.attribute, self.has_begun = self.place == "bare", "", False
            self.place = "tag"
            if bare:
                self._tag(character, data, at, line)
        elif not self.has_begun:
            self.has_begun = True
            if self.attribute in _ADDRESSES:
                ending = re.compile(r"[\s>]" if self.place == "bare" else self.place).search(data, at)
                written = data[at : ending.start() if ending else len(data)]
                if not may_be_pointed_at(unescape(written)):
                    said = f'{self.attribute}="{shown(written)}"'
                    raise WrongTemplate(line, f"{said} is no address that a mail can point at.",
                                        "Let it begin with https://.")  # fmt: skip

    def _raw(self, character: str, data: str, at: int, line: int) -> None:
        if character == "<" and re.compile(rf"</{self.tag}[\s/>]", re.IGNORECASE).match(data, at):
            self.place = "close"


_STEPS: Mapping[str, str] = {place: place for place in ("text", "raw", *_NO_VALUES) if place != "bare"}


def _places(tree: nodes.Template) -> set[int]:
    """Check where in HTML values are filled in. Returns the ids of the expressions that addresses begin with.

    Whatever an `if` decides and however often a loop is gone through, what follows stands in the same place; so a
    value stands where it was checked to stand.

    Raises:
        WrongTemplate: a value stands where it could be more than a value, or nobody can say where it stands.
    """
    html, addresses = _Html(), set[int]()
    _read(tree, html, addresses)
    if html.place != "text":
        raise WrongTemplate(_last_line(tree), f"ends {'within <' + html.tag + '>' if html.tag else 'within a tag'}.")
    return addresses


def _read(node: nodes.Node, html: _Html, addresses: set[int]) -> None:
    for child in node.iter_child_nodes():
        if isinstance(child, nodes.Output):
            for each in child.nodes:
                if isinstance(each, nodes.TemplateData):
                    html.read(each.data, each.lineno)
                elif html.fill(each.lineno):
                    addresses.add(id(each))
        elif isinstance(child, nodes.If | nodes.For):
            _read_branches(child, html, addresses)


def _read_branches(node: nodes.If | nodes.For, html: _Html, addresses: set[int]) -> None:
    before = html.here
    branches: list[Sequence[nodes.Node]] = [node.body, node.else_]
    if isinstance(node, nodes.If):
        branches += [[each] for each in node.elif_]
    else:
        branches.append([])
    ends = set()
    for branch in branches:
        html.here = before
        _read(nodes.Template(list(branch)), html, addresses)
        ends.add(html.here)
    if len(ends) > 1 or (isinstance(node, nodes.For) and html.here != before):
        raise WrongTemplate(node.lineno, "opens or ends a tag, or quotes, on some of its ways only.",
                            "Write each tag in one piece, with the whole of its quotes.")  # fmt: skip


def _last_line(tree: nodes.Template) -> int:
    return max((node.lineno for node in tree.find_all(nodes.Node) if node.lineno), default=1)


def may_be_pointed_at(address: str) -> bool:
    """Whether a message may point at it: on the web, a mail or a number to call, or a place in the same mail."""
    return address.isprintable() and address.lower().startswith(_SCHEMES)


def _address(value: Any, said: str, line: int) -> Any:
    value = _printed(value, said, line)
    if not may_be_pointed_at(str(value)):
        raise CannotFill(f"line {line}: {said} is {shown(value)}, which is no address that a mail can point at.")
    return value


# --- JSON


def _check_json(tree: nodes.Template) -> None:
    """Check that what is filled in is a value, and stays one: written by `json`, and where JSON has values.

    Raises:
        WrongTemplate: a value is written otherwise, or within quotes; or the whole is no JSON whatever is filled in.
    """
    if _quoted(tree, False):
        raise WrongTemplate(_last_line(tree), "ends within quotes.")
    if tree.find(nodes.If) is None and tree.find(nodes.For) is None:  # else what it will be depends
        written = [each.data if isinstance(each, nodes.TemplateData) else '"value"'
                   for output in tree.find_all(nodes.Output) for each in output.nodes]  # fmt: skip
        try:
            must_be_json("".join(written))
        except CannotFill as cannot:
            raise WrongTemplate(1, str(cannot), 'Write values as {"name": {{ profile.name | json }}}.') from None


def must_be_json(text: str) -> None:
    """Raises:
    CannotFill: it is none.
    """
    try:
        msgspec.json.decode(text)
    except RecursionError:
        raise CannotFill("it is nested too deeply for JSON.") from None
    except msgspec.DecodeError as error:
        raise CannotFill(f"it is no JSON: {error}.") from None


def _quoted(node: nodes.Node, is_quoted: bool) -> bool:
    """Whether a text of JSON stands open behind a node. On all of its ways it is the same."""
    for child in node.iter_child_nodes():
        if isinstance(child, nodes.Output):
            for each in child.nodes:
                if isinstance(each, nodes.TemplateData):
                    if _OPEN_ESCAPE.search(each.data):
                        raise WrongTemplate(each.lineno, "has a tag or a comment behind a backslash.")
                    is_quoted ^= len(_QUOTES.sub("", each.data)) % 2 == 1
                    continue
                if is_quoted:
                    raise WrongTemplate(each.lineno, "fills a value in within quotes, where it could end them.",
                                        "Leave the quotes out: the filter json writes them.")  # fmt: skip
                if not isinstance(each, nodes.Filter) or each.name != "json":
                    raise WrongTemplate(each.lineno, "fills a value in that is not written as JSON.",
                                        "Let it end with the filter json: {{ profile.name | json }}.")  # fmt: skip
        elif isinstance(child, nodes.If | nodes.For):
            is_quoted = _quoted_behind(child, is_quoted)
    return is_quoted


_OPEN_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\\Z")
_QUOTES = re.compile(r'\\.|[^"]', re.DOTALL)  # all but the quotes that begin or end a text


def _quoted_behind(node: nodes.If | nodes.For, before: bool) -> bool:
    ways: list[Sequence[nodes.Node]] = [node.body, node.else_]
    ways += [[each] for each in node.elif_] if isinstance(node, nodes.If) else [[]]
    ends = {_quoted(nodes.Template(list(way)), before) for way in ways}
    if len(ends) > 1 or (isinstance(node, nodes.For) and ends != {before}):
        raise WrongTemplate(node.lineno, "begins or ends a text in quotes on some of its ways only.",
                            "Write each text in one piece, with both of its quotes.")  # fmt: skip
    return ends.pop()
