"""Every text in every language, no text in a template, and the vendored files as they were published."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest
import yaml
from jinja2 import Environment, nodes

from config.segments import parse_segment
from schemas.errors import ConfigError
from web.dashboard.language import LANGUAGES, Language, catalogue
from web.dashboard.site import FOLDER, STATIC

TEMPLATES = sorted((FOLDER / "templates").glob("*.html"))
VENDOR = STATIC / "vendor"
SPOKEN = ("alt", "title", "placeholder", "aria-label", "aria-description", "aria-valuetext", "label", "summary")
JINJA = Environment()


def test_all_languages_have_the_same_texts() -> None:
    keys = {language: set(catalogue(language)) for language in LANGUAGES}

    assert [found ^ keys["en"] for found in keys.values()] == [set() for _ in LANGUAGES]


def test_a_text_takes_the_same_values_in_every_language() -> None:
    def values(text: object) -> set[str]:
        texts = list(text.values()) if isinstance(text, dict) else [text]
        return {name for each in texts for _, name, _, _ in Formatter().parse(str(each)) if name}

    different = {
        key: (values(english), values(catalogue(language)[key]))
        for key, english in catalogue("en").items()
        for language in LANGUAGES
        if values(english) != values(catalogue(language)[key])
    }

    assert different == {}


def test_no_text_is_empty_or_left_in_english() -> None:
    same = {"app.name", "app.csv", "unmerge.key", "overview.all_time", "overview.period", "column.id"}

    left = {key for key, text in catalogue("zh").items() if text == catalogue("en")[key] and key not in same}
    assert left == set()
    assert all(catalogue(language)[key] for language in LANGUAGES for key in catalogue(language))


def test_refusals_keep_what_varies_when_they_are_translated() -> None:
    texts = yaml.safe_load((FOLDER / "catalogue" / "refusals.zh.yaml").read_text())

    def gaps(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    assert [text for text, said in texts.items() if gaps(text) != gaps(said)] == []
    assert Language("zh").refusal("userId must have at most 256 characters") == "userId 最多 256 个字符"
    assert Language("zh").refusal("a reason of somebody's own processor") == "a reason of somebody's own processor"
    assert Language("en").refusal("Send both.") == "Send both."


@pytest.mark.parametrize("when", [
    "{trait: plan}", "{trait: plan, is: 1, is_not: 2}", "{trait: plan, is: 2026-01-01}", "{trait: a..b, is: 1}",
    "{trait: plan, at_least: 1.0e+20}", "{trait: plan, between: [5, 1]}", "{trait: plan, exists: maybe}",
    "{trait: plan, one_of: []}", "{trait: plan, contains: 5}", "{trait: plan, is: [1]}", "{did: ''}", '{did: "a\\0b"}',
    "{did: A, since: soon}", "{did: A, within: 0 days}", "{did: A, within: 9999 days}", "{did: A, within: soon}",
    "{did: A, exactly: 1001}", "{did: A, at_least: -1}", "{did: A, at_least: 0}", "{did: A, at_least: two}",
    "{did: A, at_least: 1, at_most: 2}", "{did: A, within: 1 day, since: 2026-01-01}", "{did: A, which: second}",
    "{did: A, which: last}", "{did: A, longer_ago: 1 day}", "{did: A, total: {of: x}}", "{did: A, nonsense: 1}",
    "{did: A, where: {x: {within: 3 days}}}", "{sequence: [{did: A}]}",
    "{sequence: [{did: A, within: 1 day}, {did: B}]}", "{sequence: [{did: A}, {did: B, within: 2 calendar days}]}",
    "{sequence: [{did: A}, {did: B}, {did: C}, {did: D}, {did: E}]}",
    "{segment: X y}", "{attribute: orders, is: 1}", "[a]", "x", "{not: " * 13 + "{did: A}" + "}" * 13,
    "{any: [" + ",".join(["{did: A}"] * 205) + "]}", "&a {not: *a}",
])  # fmt: skip
def test_what_is_wrong_with_a_condition_is_said_in_chinese_too(when: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_segment("new", f"when: {when}")

    for text in filter(None, (caught.value.what, caught.value.mend)):
        assert re.search("[\u4e00-\u9fff]", Language("zh").refusal(text)), text


def test_chinese_texts_are_set_with_chinese_signs() -> None:
    wrong = re.compile("[\u4e00-\u9fff][,;?!()]|[,;?!()][\u4e00-\u9fff]")

    assert [text for text in catalogue("zh").values() if wrong.search(str(text))] == []


def test_every_text_that_a_page_asks_for_is_there_and_every_text_is_asked_for() -> None:
    sources = [path.read_text() for path in (*TEMPLATES, *FOLDER.rglob("*.py"))]
    # `t("live.title")`, `language.text("overview.split")`; `t("nav." ~ name)` stands for all of its group.
    call = re.compile(r"""\b(?:t|text|has)\(f?["']([^"']+)["'] ?(~?)""")
    calls = [found for source in sources for found in call.findall(source)]
    asked = {key for key, more in calls if not more and "{" not in key}
    groups = {key.partition("{")[0] for key, more in calls if more or "{" in key}
    known = set(catalogue("en"))

    assert asked - known == set()
    assert {group for group in groups if not any(key.startswith(group) for key in known)} == set()
    assert {key for key in known if key not in asked and not key.startswith(tuple(groups))} == set()


class _Literals(HTMLParser):
    """Texts that a reader would see or hear."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in SPOKEN and value and re.search(r"\w", value)]

    def handle_data(self, data: str) -> None:
        if re.search(r"[^\W\d_]", data):
            self.found.append(data.strip())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_holds_a_text_of_its_own(path: Path) -> None:
    source = re.sub(r"{% set call_text %}.*?{% endset %}", "", path.read_text(), flags=re.DOTALL)  # a shell command
    literals = _Literals()

    for _, token, value in JINJA.lex(source):
        if token == "data":
            literals.feed(value)
        elif token in ("variable_end", "block_end"):
            literals.feed("\u2022")  # stands for what comes out, so that tags and quotes stay whole

    assert literals.found == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_lets_anything_through_unescaped(path: Path) -> None:
    source = path.read_text()
    tree = JINJA.parse(source)

    filters = {found.name for found in tree.find_all(nodes.Filter)}
    assert not filters & {"safe", "xmlattr", "forceescape"}
    assert "autoescape" not in source
    # What the policy would not let work, or should never have to.
    assert re.findall(r"<(?:style|script)(?![^>]*\bsrc=)[^>]*>", source) == []
    assert re.findall(r"\s(?:on[a-z]+|style|hx-on[^=\s]*|hx-vals|hx-headers)\s*=", source) == []
    # An attribute without quotes, which a value with a space would break out of.
    assert re.findall(r"""\s[a-z-]+={{""", source) == []


def test_scripts_of_ours_write_no_markup_but_what_the_server_made() -> None:
    for path in STATIC.glob("*.js"):
        source = path.read_text()
        assert not re.search(r"innerHTML|outerHTML\s*=|insertAdjacent|document\.write|\beval\(|new Function", source)


def test_a_language_says_what_it_lacks_by_its_key() -> None:
    with pytest.raises(KeyError, match="no-such-text"):
        Language("en").text("no-such-text")


# --- vendored files


def test_vendored_files_are_those_that_were_published() -> None:
    listed = {
        f"{package['folder']}/{name}": digest
        for package in json.loads((VENDOR / "vendor.json").read_text())
        for name, digest in package["files"].items()
    }

    there = {str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest()
             for path in VENDOR.glob("*/*")}  # fmt: skip
    assert there == listed


def test_every_vendored_package_names_version_and_licence_and_brings_its_text() -> None:
    for package in json.loads((VENDOR / "vendor.json").read_text()):
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
        assert package["licence"] in ("MIT", "0BSD")
        assert (VENDOR / package["folder"] / "LICENSE").read_text().strip()


def test_no_page_or_script_names_another_site() -> None:
    # A namespace is a name and not an address; vendor.json and licences are read by people.
    names = {"http://www.w3.org/2000/svg"}
    address = re.compile(r"""(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s"')]*""")
    for path in (*TEMPLATES, *STATIC.glob("*.*")):
        assert set(address.findall(path.read_text())) - names == set(), path
