"""Tokens of links are ours alone, and the keys that sign them are kept well."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.key_file import MOST_KEYS, SECRET_BYTES
from config.link_keys import load_link_keys, read_link_keys
from config.settings import Settings, load_settings
from schemas.errors import ConfigError
from schemas.keys import LONGEST_ID
from schemas.messages import CLICKED, MACHINES, OPENED
from schemas.times import DAY_MS
from sinks.messages.links import (
    CLICK,
    LIFE_S,
    LONGEST_TOKEN,
    OPEN,
    PREFERENCES,
    UNSUBSCRIBE,
    Click,
    ExpiredLink,
    Mailed,
    Tokens,
    UnknownLink,
)
from sinks.messages.tracking import LONGEST_ADDRESS, UNTRACKED
from streams.metrics import LINK_LOST
from web.links.limits import AT_ONCE, PER_S
from web.links.machines import MOST_READERS, SWIFT_S
from web.links.recording import PATIENCE_S

NOW_S = 1_795_000_000.0
OLD, NEW = bytes(range(32)), bytes(range(32, 64))
ADA = Mailed("0123456789abcdef" * 2, "shop/u:ada", "welcome", "offers", "email")
ONE, TWO = f"2026-11-21 {NEW.hex()}", f"2025-10-02 {OLD.hex()}"
KAFKA = "kafka://localhost:9092"


def tokens(*secrets: bytes, at_s: float = NOW_S) -> Tokens:
    return Tokens(secrets, lambda: at_s)


def key_file(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    file = folder / "link_keys"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.chmod(mode)
    return file


# --- tokens


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@given(ids, ids, ids, ids, st.integers(0, 10_000), st.text(max_size=50))
def test_a_token_says_what_was_signed(person: str, template: str, topic: str, id_: str, number: int, url: str) -> None:
    said = Click(id_, person, template, topic, "email", number, url)

    assert tokens(NEW).read(CLICK, tokens(NEW, OLD).sign(CLICK, said)) == said


def test_the_longest_ids_have_a_link_to_unsubscribe() -> None:
    said = Mailed("f" * 32, f"{'w' * 63}/u:{'😀' * LONGEST_ID}", "t" * 63, "😀" * 100, "email")

    token = tokens(NEW).sign(UNSUBSCRIBE, said)

    assert len(token) < LONGEST_TOKEN
    assert tokens(NEW).read(UNSUBSCRIBE, token) == said


def test_of_a_changed_token_nothing_is_believed() -> None:
    token = tokens(NEW).sign(OPEN, ADA)
    changed = [f"{token[:at]}{other}{token[at + 1:]}" for at, sign in enumerate(token)
               for other in (chr(ord(sign) ^ 1), chr(ord(sign) ^ 2), "A", "=", "é") if other != sign]  # fmt: skip
    hostile = [token[:-1], token[1:], token + "A", token + "\n", f" {token}", token.replace(".", "", 1), "",
               token * 2, ".", "..", "...", "\0", "\ud800", "A" * 10_000,
               f"{'A' * 10_000}.AAAA.{'A' * 43}", "数据.数.据"]  # fmt: skip

    for each in [*changed, *hostile]:
        with pytest.raises(UnknownLink):
            tokens(NEW).read(OPEN, each)


def test_one_kind_is_never_taken_for_another() -> None:
    kinds = (OPEN, UNSUBSCRIBE, PREFERENCES)

    for made in kinds:
        for read in kinds:
            if made is not read:
                with pytest.raises(UnknownLink):
                    tokens(NEW).read(read, tokens(NEW).sign(made, ADA))


def test_what_an_older_key_signed_is_read_until_the_key_is_gone() -> None:
    token = tokens(OLD).sign(OPEN, ADA)

    assert tokens(NEW, OLD).read(OPEN, token) == ADA
    assert tokens(NEW).read(OPEN, tokens(NEW, OLD).sign(OPEN, ADA)) == ADA
    for without in (tokens(NEW), tokens()):
        with pytest.raises(UnknownLink):
            without.read(OPEN, token)


def test_a_link_works_for_400_days_and_where_clocks_differ() -> None:
    token = tokens(NEW).sign(UNSUBSCRIBE, ADA)

    assert LIFE_S == 400 * DAY_MS // 1000
    for at_s in (NOW_S - 60, NOW_S + LIFE_S):
        assert tokens(NEW, at_s=at_s).read(UNSUBSCRIBE, token) == ADA
    with pytest.raises(ExpiredLink):
        tokens(NEW, at_s=NOW_S + LIFE_S + 1).read(UNSUBSCRIBE, token)


# --- keys


def test_keys_are_read_newest_first(tmp_path: Path) -> None:
    file = key_file(tmp_path, f"# of the shop\n{ONE}\n\n{TWO}\n")

    keys = read_link_keys(file)

    assert [(key.name, key.secret) for key in keys] == [("2026-11-21", NEW), ("2025-10-02", OLD)]
    assert NEW.hex() not in repr(keys) and str(NEW) not in repr(keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"),
        (b"\xff\xfe", "not UTF-8"),
        (f"{ONE}\n{NEW.hex()}\n", "line 2: has 1 words"),
        (f"{ONE} more\n", "line 1: has 3 words"),
        (f"{NEW.hex()} key\n", "line 1: the name is as long as a secret"),
        (f"a/b {NEW.hex()}\n", "line 1: a/b is no name"),
        (f"key {NEW.hex()[:-1]}\n", "has 63 characters; it must be 64 hexadecimal digits"),
        (f"key {NEW.hex()[:-1]}g\n", "must be 64 hexadecimal digits"),
        (f"{ONE}\n{ONE}\n", "line 2: .* stands above, too"),
        (f"{ONE}\nother {NEW.hex()}\n", "line 2: .* stands above, too"),
        ("".join(f"key-{number} {number:064x}\n" for number in range(MOST_KEYS + 1)), "holds 11 keys; at most 10"),
        ("#" * 20_000, "larger than 10,000 bytes"),
    ],
)
def test_what_is_no_key_is_refused_and_never_shown(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        read_link_keys(key_file(tmp_path, text))

    assert NEW.hex()[:16] not in str(error.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
def test_keys_that_others_may_read_are_refused(tmp_path: Path, mode: int) -> None:
    file = key_file(tmp_path, ONE, mode)

    with pytest.raises(ConfigError, match=rf"others \(mode {mode:04o}\)\. chmod 600 {file}"):
        read_link_keys(file)


def test_beside_the_embedded_log_keys_are_made_once(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data", public_url="https://go.shop.test")

    (key,) = load_link_keys(settings)

    file = tmp_path / "data" / "link_keys"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (len(key.secret), list(file.parent.iterdir())) == (32, [file])
    assert load_link_keys(settings) == (key,)
    assert load_link_keys(Settings(data=tmp_path / "data")) == (key,)  # links that were sent still lead somewhere


def test_without_a_public_address_nothing_is_made(tmp_path: Path) -> None:
    assert load_link_keys(Settings(data=tmp_path)) == ()
    assert list(tmp_path.iterdir()) == []


def test_on_kafka_keys_must_be_given(tmp_path: Path) -> None:
    on_kafka = {"data": tmp_path, "log": KAFKA, "public_url": "https://go.shop.test"}
    nowhere = str(tmp_path / "nowhere")

    with pytest.raises(ConfigError, match=r"link_keys: is not set.*openssl rand.*TIDEWIRE_LINK_KEYS"):
        load_link_keys(Settings(**on_kafka))
    with pytest.raises(ConfigError, match=rf"{nowhere} is not there.*openssl rand"):
        load_link_keys(Settings(**on_kafka, link_keys=nowhere))
    assert len(load_link_keys(Settings(**on_kafka, link_keys=str(key_file(tmp_path, ONE))))) == 1


# --- the address


@pytest.mark.parametrize("url", ["https://go.shop.test", "https://go.shop.test:8443/", "http://localhost:8088", ""])
def test_a_public_address_is_a_scheme_and_a_host(url: str) -> None:
    assert Settings(public_url=url).public_url == url.rstrip("/")


@pytest.mark.parametrize("url", ["http://go.shop.test", "go.shop.test", "https://shop.test/go", "https://a@shop.test",
                                 "https://shop.test?a", "https://", "https://shop test", "ftp://shop.test",
                                 "https://shop.test\n"])  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"TIDEWIRE_PUBLIC_URL: (write it as https://go|must be https)"):
        load_settings(environ={"TIDEWIRE_PUBLIC_URL": url})


# --- the page


def test_the_page_says_what_the_code_does() -> None:
    page = " ".join(Path("docs/links.md").read_text(encoding="utf-8").split())
    table = dict(re.findall(r"\| `(\w+)` \| ([^|]+) \|", page.partition("| `machine` |")[2]))

    assert table == MACHINES
    assert all(f"`{event}`" in page for event in (OPENED, CLICKED, "Unsubscribed", "Consent Changed"))
    assert all(f"/l/{kind.letter}/TOKEN" in page for kind in (CLICK, OPEN, UNSUBSCRIBE, PREFERENCES))
    for limit in (f"longer than {LONGEST_ADDRESS:,} characters", f"good for {LIFE_S // 86_400} days",
                  f"{PER_S} times a second, {AT_ONCE:,} at once", f"last {MOST_READERS:,} readers",
                  f"`{UNTRACKED}`", f"`{LINK_LOST.name}`", f"{2 * SECRET_BYTES} hexadecimal"):  # fmt: skip
        assert limit in page
    assert PATIENCE_S == SWIFT_S == 1.0
