"""docs/coupons.md: its example, run to the letter by a real `up`, and killed in the middle; and its numbers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from config.coupons import MOST_CAMPAIGNS, MOST_POOL, CampaignFile
from schemas.codes import LONGEST, SHORTEST, UNLIKELY, most_codes
from schemas.coupons import HISTORY_MS, TOLD, WhyMisused, WhyRefused
from schemas.times import DAY_MS
from streams.cli.app import app
from tests.cli.running import Up

PAGE = (Path(__file__).parents[2] / "docs" / "coupons.md").read_text(encoding="utf-8")
FILES = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
(CAMPAIGN,) = [text for kind, text in FILES if kind == "yaml"]
ORDERS, LATER = [text for kind, text in FILES if kind == "json"]


def until(reached: Callable[[], bool]) -> None:
    by = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < by
        time.sleep(0.5)  # a question is a process of its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("coupons")
    (folder / "config" / "coupons").mkdir(parents=True)
    (folder / "config" / "coupons" / "spring.yaml").write_text(CAMPAIGN)
    (folder / "orders.jsonl").write_text(ORDERS)
    yield folder


def test_the_example_does_what_the_page_says_and_a_kill_changes_nothing(folder: Path) -> None:
    assert re.search(r"tidewire send orders\.jsonl\n    tidewire coupon list", PAGE)
    up = Up(folder)
    assert up.ask("send", "orders.jsonl").code == 0
    until(lambda: up.ask("coupon", "list", "--json").json["given"] == 1)

    given = up.ask("coupon", "give", "spring", "--to", "bob", "--wait", "60")
    code = given.out.strip()
    up.kill()
    up = Up(folder)
    again = up.ask("coupon", "give", "spring", "--to", "bob@example.com", "--wait", "60")
    (folder / "later.jsonl").write_text(LATER.replace("CODE", code.lower()))
    assert up.ask("send", "later.jsonl").code == 0
    until(lambda: "state: used" in up.ask("coupon", "show", code).out)
    shown = up.ask("coupon", "show", code.lower())
    listed = up.ask("coupon", "list", "--json").json
    nobody = up.ask("coupon", "show", "SPRING-2222222222")
    up.stop()

    assert given.code == 0 and re.fullmatch(r"SPRING-[2-9A-HJKMNP-Z]{10}", code), given.err
    assert again.out.strip() == code
    assert "order_id: B-2" in shown.out and "person: default/u:bob" in shown.out
    assert (listed["given"], listed["used"], listed["refused"], listed["worth_given"]) == (2, 1, 0, 20)
    assert nobody.code == 1 and nobody.err.startswith("tidewire: Nobody was given the code")


def test_codes_are_made_and_doubles_are_counted(folder: Path) -> None:
    done = CliRunner().invoke(app, ["coupon", "check", "--codes", "20000", "--config", str(folder / "config")])
    files = CliRunner().invoke(app, ["coupon", "check", "--json", "--config", str(folder / "config")])

    assert done.exit_code == 0 and done.output.startswith("20,000 codes, 0 doubles, "), done.output
    assert '"campaign":"spring"' in files.output and "tidewire coupon check --codes 1000000" in PAGE


def test_the_page_says_what_the_code_does() -> None:
    words = [*TOLD, *WhyRefused.__args__, *WhyMisused.__args__, *CampaignFile.model_fields]

    assert [word for word in words if f"`{word}`" not in PAGE] == []
    assert f"at most {MOST_POOL:,}" in PAGE and f"At most {MOST_CAMPAIGNS} files" in PAGE
    assert f"{most_codes(SHORTEST):,} of `length: {SHORTEST}`" in PAGE and f"so on to {LONGEST}." in PAGE
    assert f"{most_codes(10):,} of the usual `length: 10`" in " ".join(PAGE.split())
    assert UNLIKELY == 1_000_000 and "At most one of a million" in PAGE
    assert f"more than {HISTORY_MS // DAY_MS} days old" in PAGE
    assert set(yaml.safe_load(CAMPAIGN)) == set(CampaignFile.model_fields)
