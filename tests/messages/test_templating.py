"""What templates may use and may cost, and that nothing a person said becomes more than text."""

from __future__ import annotations

import string
import time
from collections.abc import Mapping
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.messages.templating import (
    DEEPEST,
    FILTERS,
    LARGEST,
    LONGEST_SOURCE,
    MOST_ROUNDS,
    CannotFill,
    Locale,
    WrongTemplate,
    compile_part,
)

EN = Locale("en", "Europe/Berlin")
ADA: Mapping[str, Any] = {
    "profile": {"name": "Ada", "email": "ada@example.com", "items": "a key", "tags": ["a", "b"], "empty": "",
                "null": None, "traits": {"plan": "gold", "is_member": True}},
    "orders": {"orders": 3, "revenue": {"EUR": "1234.50", "USD": 3}, "last_at": "2026-11-01T23:30:00Z",
               "recent": [{"id": 1}, {"id": 2}]},
}  # fmt: skip


def filled(source: str, values: Mapping[str, Any] = ADA, *, locale: Locale = EN, is_html: bool = False) -> str:
    return compile_part(source, locale, is_html=is_html).fill(values)


# --- the gate


@pytest.mark.parametrize(
    "attack",
    [
        "{{ '%999999999d'|format(1) }}",
        "{{ 'a'.ljust(999999999) }}",
        "{{ 'a'|center(999999999) }}",
        "{{ 'a'|replace('a', 'aaaaaaaa') }}",
        "{{ 'a' * 200000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 1 + 1 }}",
        "{{ -profile.x }}",
        "{{ 'a' ~ 'b' }}",
        "{{ {'a': 1} }}",
        "{{ profile.name[0:2] }}",
        "{{ profile.name[::-1] }}",
        "{{ ''.__class__ }}",
        "{{ profile.__class__.__mro__ }}",
        "{{ profile['__class__'] }}",
        "{{ profile._private }}",
        "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ lipsum() }}",
        "{{ cycler('a') }}",
        "{{ loop.cycle('a') }}",
        "{{ profile|attr('name') }}",
        "{{ profile|safe }}",
        "{{ profile|tojson }}",
        "{{ profile.tags|map('upper')|join }}",
        "{{ profile.tags|join(profile.name) }}",
        "{{ profile.name|truncate(999999999) }}",
        "{{ profile.name|truncate(orders.orders) }}",
        "{{ profile.name|truncate(true) }}",
        "{{ profile.name|truncate(length=3) }}",
        "{{ profile.name|truncate(*profile.tags) }}",
        "{{ profile.name|default }}",
        "{{ profile.name|truncate(-1) }}",
        "{{ profile.tags|join(5) }}",
        "{{ profile.tags|limit('a') }}",
        "{{ orders.orders|number('a') }}",
        "{{ orders.orders|number(11) }}",
        "{{ orders.orders|money('EURO') }}",
        "{{ orders.orders|money(978) }}",
        "{{ orders.last_at|date('wide') }}",
        "{{ orders.last_at|time(5) }}",
        "{{ profile.name is divisibleby 0 }}",
        "{{ profile.name is filter }}",
        "{% for i in range(10) %}{% endfor %}",
        "{% for x in profile.tags recursive %}{{ loop(x) }}{% endfor %}",
        "{% set x = 1 %}",
        "{% set x %}a{% endset %}",
        "{% include 'x' %}",
        "{% extends 'x' %}",
        "{% import 'x' as y %}",
        "{% from 'x' import y %}",
        "{% macro m() %}{% endmacro %}",
        "{% call m() %}{% endcall %}",
        "{% block b %}{% endblock %}",
        "{% filter upper %}{% endfilter %}",
        "{% with a = 1 %}{% endwith %}",
        "{% autoescape false %}{{ profile.name }}{% endautoescape %}",
        "{% raw %}{{ profile.name }}{% endraw %}",
        "{%- raw -%}{% endraw %}",
        "{% do profile %}",
        "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
        "{{ not " * 3 + "not " * 5_000 + "1 }}",
        "{{ " + "9" * 6_000 + " }}",
        "{{ '" + "a" * 2_000 + "' }}",
        "a" * (LONGEST_SOURCE + 1),
        "{% for a in b %}" * (DEEPEST + 1) + "{% endfor %}" * (DEEPEST + 1),
        "{% for a in b %}{% for c in d %}" + "{{ c.x }}" * 200 + "{% endfor %}{% endfor %}",
        "{{ profile.name",
        "{% if %}",
        "{% endif %}",
    ],
)
def test_what_a_template_may_not_is_refused_at_once(attack: str) -> None:
    began = time.process_time()
    with pytest.raises(WrongTemplate) as refused:
        compile_part(attack, EN)
    assert refused.value.line >= 1 and refused.value.what
    assert time.process_time() - began < 2.0


def test_a_refusal_names_the_line_and_the_mend() -> None:
    with pytest.raises(WrongTemplate) as refused:
        compile_part("Hello\n\n{{ profile.name | uper }}", EN)

    assert str(refused.value).startswith('line 3: there is no filter "uper". Filters: capitalize, date, default')


def test_a_template_that_is_all_loops_ends_soon() -> None:
    """The dearest that passes: two loops of all rounds each, about as much in them as may be."""
    source = "{% for a in x %}{% for b in x %}" + "{% if b.c %}y{% endif %}" * 39 + "{% endfor %}{% endfor %}"
    began = time.process_time()

    assert filled(source, {"x": [{}] * MOST_ROUNDS}) == ""

    assert time.process_time() - began < 5.0


def test_what_becomes_too_long_is_not_sent() -> None:
    with pytest.raises(CannotFill, match="longer than 512 kB"):
        filled("{% for a in x %}{{ y }}{% endfor %}", {"x": [1] * MOST_ROUNDS, "y": "y" * (LARGEST // MOST_ROUNDS + 1)})


def test_what_is_asked_for_is_known_with_its_line() -> None:
    part = compile_part("{{ profile.name }}\n{% for each in orders.recent %}\n{{ each.id }} {{ loop.index }} "
                        "{{ given['x'] }}{% endfor %}", EN)  # fmt: skip

    assert part.asked == {"profile.name": 1, "orders.recent": 2, "given.x": 3}


# --- values


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Hi {{ profile.name }}!", "Hi Ada!"),
        ("{{ profile['name'] }} {{ orders.recent[1].id }}", "Ada 2"),
        ("{{ profile.items }}", "a key"),  # and not the method of a dict
        ("{{ profile.nick | default('you') }}", "you"),
        ("{{ profile.empty | default('you') }}{{ profile.null | default('!') }}", "you!"),
        ("{{ profile.nick.deep | upper | default(profile.name) }}", "Ada"),
        ("{{ profile.name | upper | lower | capitalize }}", "Ada"),
        ("{{ profile.tags | join }}/{{ profile.tags | join('; ') }}/{{ profile.tags | first }}", "a, b/a; b/a"),
        ("{{ profile.tags | last }}{{ profile.tags | length }}", "b2"),
        ("{{ profile.email | truncate(5) }}{{ profile.email | truncate(50) }}", "ada@…ada@example.com"),
        ("{{ orders.revenue.EUR | money('EUR') }}", "€1,234.50"),
        ("{{ orders.revenue.EUR | number }} {{ orders.orders | number(2) }}", "1,234.5 3.00"),
        ("{{ orders.last_at | date }}", "November 2, 2026"),  # in Berlin it is tomorrow
        ("{{ orders.last_at | date('short') }}", "11/2/26"),
        ("{{ '2026-11-01' | date }}", "November 1, 2026"),  # a day is a day, wherever
        ("{{ orders.last_at | time }}", "12:30\u202fAM"),
        ("{% for k, v in orders.revenue | items %}{{ k }}={{ v }}{% if not loop.last %}, {% endif %}{% endfor %}",
         "EUR=1234.50, USD=3"),
        ("{% for each in orders.recent | limit(1) %}{{ each.id }}{{ loop.index }}{% endfor %}", "11"),
        ("{% for each in orders.recent if each.id > 1 %}{{ each.id }}{% else %}none{% endfor %}", "2"),
        ("{% if orders.orders >= 2 and profile.traits.plan == 'gold' %}yes{% endif %}", "yes"),
        ("{% if profile.traits.plan in ['gold', 'silver'] %}yes{% endif %}", "yes"),
        ("{% if profile.nick %}a{% elif profile.nick > 3 %}b{% elif 3 > profile.nick %}c{% else %}d{% endif %}", "d"),
        ("{% if profile.nick == profile.nick %}a{% else %}b{% endif %}", "b"),  # as in segments: missing is nothing
        ("{% if 'a' in profile.nick %}a{% else %}b{% endif %}", "b"),
        ("{% if profile.empty is defined %}a{% else %}b{% endif %}", "b"),
        ("{{ 'yes' if profile.traits.is_member else 'no' }}", "yes"),
        ("{{ 'a/b c' | urlencode }}", "a%2Fb%20c"),
        ("{{ profile.tags | json }} {{ profile.traits | json }}", '["a","b"] {"plan":"gold","is_member":true}'),
        ("{{ profile.nick | json }} {{ profile.null | upper | json }} {{ profile.empty | json }}", 'null null ""'),
        ("{{ '</a>\"\u2028王' | json }}", r'"\u003c/a\u003e\"\u2028\u738b"'),
        ("a\n{% if profile.name %}\nb\n{% endif %}\nc", "a\nb\nc"),
        ("{% if profile.name %}Ada{% endif %}\n\nb", "Ada\n\nb"),
        ("a{#\n{% if profile.name %}\nnot said\n{% endif %}\n#}b", "ab"),
    ],
)  # fmt: skip
def test_values_are_written_as_people_write_them(source: str, text: str) -> None:
    assert filled(source) == text


@pytest.mark.parametrize(
    ("locale", "text"),
    [(Locale("de", "UTC"), "1.234,50\xa0€, 1. November 2026"), (Locale("zh", "UTC"), "€1,234.50, 2026年11月1日"),
     (Locale("fr_CA", "UTC"), "1\xa0234,50\xa0$\xa0US, 1 novembre 2026")],
)  # fmt: skip
def test_money_and_days_are_written_as_in_the_language(locale: Locale, text: str) -> None:
    currency = "USD" if locale.language == "fr_CA" else "EUR"
    source = f"{{{{ orders.revenue.EUR | money('{currency}') }}}}, {{{{ orders.last_at | date }}}}"

    assert filled(source, locale=locale) == text


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("a\n{{ profile.nick }}", 'line 2: profile.nick is missing. Say what stands in its place: '
                                  '{{ profile.nick | default("…") }}.'),
        ("{{ profile.nick | upper }}", "profile.nick is missing"),
        ("{{ profile.empty }}", "profile.empty is missing"),
        ("{{ profile.null }}", "profile.null is missing"),
        ("{{ profile.name.upper }}", "profile.name.upper is missing"),
        ("{{ profile.tags }}", "profile.tags is several values"),
        ("{{ profile.traits }}", "profile.traits is several values"),
        ("{{ profile.traits.is_member }}", "profile.traits.is_member is true or false"),
        ("{% for x in orders.nope %}{% endfor %}", "orders.nope is missing. Ask for it first: {% if orders.nope %}"),
        ("{% for x in profile.name %}{% endfor %}", "profile.name is no list"),
        ("{% for x in orders.many %}{% endfor %}", "orders.many has 101 entries, a loop goes over 100. Take some: "
                                                   "orders.many | limit(10)."),
        ("{{ profile.name | money('EUR') }}", "Ada is not a number"),
        ("{{ profile.traits.is_member | number }}", "True is not a number"),
        ("{{ profile.name | date }}", "Ada is not a time"),
        ("{{ '0001-01-01T00:00:00Z' | date }}", "a value is beyond what can be written"),
        ("{{ profile.name | join }}", "Ada is not a list"),
        ("{{ profile.tags | upper }}", "is not a text or a number"),
        ("{{ profile.bio | upper }}", "has a length of 10,001; filters take at most 10,000."),
        ("{{ profile.bio | json }}", "has a length of 10,003; filters take at most 10,000."),
        ("{% for x in profile.tags %}{{ loop | json }}{% endfor %}", "is not a value that can be written as JSON"),
        ("{{ profile.likes | join }}", "has a length of 10,001; filters take at most 10,000."),
        ("{% if profile.name > 3 %}{% endif %}", "two values of different kinds are compared"),
    ],
)  # fmt: skip
def test_of_whom_something_is_missing_is_sent_nothing(source: str, told: str) -> None:
    part = compile_part(source, Locale("en", "America/New_York"))

    with pytest.raises(CannotFill) as cannot:
        part.fill({**ADA, "orders": {**ADA["orders"], "many": list(range(101))},
                   "profile": {**ADA["profile"], "bio": "a" * 10_001, "likes": ["a"] * 10_001}})  # fmt: skip

    assert told in str(cannot.value)


@pytest.mark.parametrize("value", ["1e999999", "NaN", "Infinity", float("inf"), 10**400, "9" * 5_000, [], {}])
def test_no_number_is_too_odd_for_a_template(value: object) -> None:
    for source in ("{{ x | money('EUR') }}", "{{ x | number }}", "{{ x | date }}"):
        with pytest.raises(CannotFill):
            filled(source, {"x": value})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
    | st.datetimes().map(lambda at: f"{at.isoformat()}Z") | st.dates().map(str) | st.decimals().map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
TRIED = (
    "capitalize", "date", "date('full')", "default(x)", "first", "items", "join", "json", "last", "length", "limit(2)",
    "lower",
    "money('EUR')", "number", "number(2)", "time", "title", "trim", "truncate(3)", "upper", "urlencode",
    "items | first | last",
)  # fmt: skip
FILLED = [compile_part(f"{{{{ x | {said} }}}}", Locale(language, "America/New_York"), is_html=is_html)
          for language, is_html in (("en", False), ("zh", True)) for said in TRIED]  # fmt: skip


@given(JSON)
def test_whatever_a_value_is_it_is_written_or_she_is_sent_nothing(value: object) -> None:
    for part in FILLED:
        with suppress(CannotFill):
            assert part.fill({"x": value})


def test_every_filter_was_tried() -> None:
    assert {said.partition("(")[0] for said in TRIED} >= set(FILTERS)


@pytest.mark.parametrize("language", ["xx", "eng_XX"])
def test_a_language_that_nobody_speaks_is_refused(language: str) -> None:
    with pytest.raises(WrongTemplate, match=f'"{language}" is no language that is known'):
        compile_part("a", Locale(language, "UTC"))


# --- HTML


@pytest.mark.parametrize(
    "source",
    [
        "<a href={{ x }}>a</a>",
        "<a {{ x }}>a</a>",
        "<p/title={{ x }}>a</p>",
        "<p title = {{ x }}>a</p>",
        "<p title=a{{ x }}>a</p>",
        "<{{ x }}>",
        "</{{ x }}>",
        "<p{{ x }}>",
        "<p a{{ x }}='b'>",
        "<p a {{ x }}='b'>",
        "<!-- {{ x }} -->",
        "<!{{ x }}>",
        "<?{{ x }}>",
        "<style>{{ x }}</style>",
        "<style>p{}</styl>{{ x }}</style>",
        "<p style='color: {{ x }}'>",
        "<p onclick='a'>",
        "<p OnClick='a'>",
        "<p srcdoc='a'>",
        "<meta http-equiv=refresh content='0;url=https://x'>",
        "<script>{{ x }}</script>",
        "<SCRIPT>a</SCRIPT>",
        "<iframe src='https://x'></iframe>",
        "<svg><a></a></svg>",
        "<form action='https://x'></form>",
        "<a href='javascript:alert(1)'>a</a>",
        "<a href='&#106;avascript:alert(1)'>a</a>",
        "<a href=' javascript:alert(1)'>a</a>",
        "<a href='java\tscript:alert(1)'>a</a>",
        "<a href='data:text/html,x'>a</a>",
        "<a href='/relative'>a</a>",
        "<a href=''>a</a>",
        "<a href=javascript:alert(1)>a</a>",
        "<a title='{% if x %}'{% endif %} {{ x }}>a</a>",
        "<p {% if x %}title='{% endif %}{{ x }}'>",
        "<{% if x %}b{% endif %}{{ x }}>",
        "{% for a in x %}{{ a }}<{% endfor %}",
        "{% if x %}<{% endif %}{{ x }}",
        "{% if x %}<!--{% endif %}{{ x }}",
        "<a href='{% if x %}https://x/{% endif %}{{ x }}'>",
        "<a href='hr{% if x %}ef{% endif %}'>",
        "<p title='a",
        "<p",
        "<!-- a",
    ],
)
def test_no_value_stands_where_it_could_be_more_than_a_value(source: str) -> None:
    with pytest.raises(WrongTemplate):
        compile_part(source, EN, is_html=True)


@pytest.mark.parametrize(
    "source",
    [
        "<p>{{ x }}</p>",
        "<p title='{{ x }}' class=\"a {{ x }}\">a</p>",
        "<a href='https://shop.test/{{ x | urlencode }}?a=b'>a</a>",
        "<a href=\"{{ x }}\">a</a>",
        "<a href=https://shop.test/a>a</a>",
        "<a href='mailto:a@example.com'>a</a><a href='#top'>b</a><img src='cid:logo' alt=''>",
        "<title>{{ x }}</title><textarea>{{ x }}</textarea>",
        "<style>p > a { color: red }</style><p>{{ x }}</p>",
        "<!-- <p onclick='a'> --><p>{{ x }}</p>",
        "<!doctype html><html lang='en'><head><meta charset=utf-8></head><body>{{ x }}</body></html>",
        "<table>{% for a in x %}<tr><td>{{ a }}</td></tr>{% endfor %}</table>",
        "<p class='{% if x %}a{% else %}b{% endif %}'>{{ x }}</p>",
        "{% if x %}<p>{% else %}<div>{% endif %}{{ x }}",
        "<p>1 < 2 and {{ x }} > 0 <3 </p>",
        "<br/><hr /><input disabled value='{{ x }}'>",
    ],
)
def test_ordinary_html_passes(source: str) -> None:
    compile_part(source, EN, is_html=True)


@pytest.mark.parametrize("address", ["javascript:alert(1)", "//evil.test", "data:text/html,x", " https://x", "https://x\n"])
def test_an_address_that_somebody_said_is_looked_at_before_it_is_pointed_at(address: str) -> None:
    source = "a\n<a href='{{ profile.url }}'>a</a>"
    assert filled(source, {"profile": {"url": "https://x/?a=1&b"}}, is_html=True).endswith("'https://x/?a=1&amp;b'>a</a>")

    with pytest.raises(CannotFill, match=r"(?s)line 2: profile\.url is .*no address that a mail can point at"):
        filled(source, {"profile": {"url": address}}, is_html=True)


class Seen(HTMLParser):
    """The tags and attributes that a browser would see."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", ()))


HOSTILE = st.text(string.ascii_letters + "<>\"'=/ &;!-`\n\x00{}%#:", max_size=40) | st.sampled_from(
    ["<script>alert(1)</script>", "\" onload=\"alert(1)", "' onload='alert(1)", "--><b>", "</title><b>",
     "{{ profile }}", "{% raw %}", "&lt;b&gt;", "</textarea><img src=x onerror=alert(1)>"]
)  # fmt: skip
PAGE = """<!doctype html><html><head><title>{{ a }}</title><style>p { color: red }</style></head><body>
<p title="{{ a }}" class='x {{ b }}'>{{ a }}{% if a == b %}<b>{{ b }}</b>{% endif %}</p>
{% for each in list %}<li><a href="https://shop.test/{{ each }}">{{ each | upper }}</a></li>{% endfor %}
<textarea>{{ b }}</textarea></body></html>"""


@given(HOSTILE, HOSTILE, st.lists(HOSTILE, max_size=3))
def test_whatever_people_say_the_tags_are_those_of_the_template(a: str, b: str, some: list[str]) -> None:
    part = compile_part(PAGE, EN, is_html=True)
    said = {"a": a or "-", "b": b or "-", "list": [each or "-" for each in some]}
    tame = {"a": "a", "b": "a" if said["a"] == said["b"] else "b", "list": ["c"] * len(some)}

    assert Seen(part.fill(said)).tags == Seen(part.fill(tame)).tags
