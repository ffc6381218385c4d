"""Write keys: the file, its mistakes, the lookup."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.write_keys import WriteKey, WriteKeys, hash_of, load_write_keys, new_write_key, read_write_keys, trial_keys
from schemas.errors import ConfigError

HASH = hash_of("secret")


def file_with(folder: Path, text: str) -> Path:
    file = folder / "write_keys.yaml"
    file.write_text(text)
    return file


def test_a_key_is_found_by_its_plain_text_and_the_file_holds_only_its_hash(tmp_path: Path):
    plain, lines = new_write_key("shop-web")
    file_with(tmp_path, "keys:\n" + lines)

    keys = load_write_keys(tmp_path)

    found = keys.find(plain)
    assert found is not None
    assert (found.name, found.workspace, found.kind) == ("shop-web", "default", "public")
    assert plain not in lines
    assert keys.find(plain + " ") is keys.find("") is keys.find("x" * 1_000_000) is keys.find("\ud800") is None


def test_new_keys_differ():
    assert new_write_key("a")[0] != new_write_key("a")[0]


def test_a_new_key_with_a_wrong_name_is_refused():
    with pytest.raises(ConfigError, match="lower case letters"):
        new_write_key("Shop Web")


def test_the_file_may_be_missing_or_empty(tmp_path: Path):
    assert read_write_keys(tmp_path / "none.yaml") == ()
    assert read_write_keys(file_with(tmp_path, "# nothing\n")) == ()
    assert read_write_keys(file_with(tmp_path, "keys: []\n")) == ()


def test_the_example_file_is_right_and_has_no_key():
    assert read_write_keys(Path(__file__).parents[2] / "config" / "write_keys.yaml") == ()


ENTRY = f"keys:\n  - name: web\n    sha256: {HASH}\n    kind: public\n"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("keys:\n  - name: web\n    kind: public\n", 2, "sha256"),
        (ENTRY.replace("public", "secret"), 4, "kind"),
        (ENTRY + "    colour: red\n", 5, "Fields are: name, sha256"),
        (ENTRY.replace("web", "Web Shop"), 2, "lower case letters"),
        (ENTRY.replace("web", "kafka"), 2, "producers write to the topic"),
        (ENTRY.replace("web", "tidewire"), 2, "what became of messages"),
        (ENTRY.replace(HASH, "secret"), 3, "sha256"),
        (ENTRY + "    workspace: A/B\n", 5, "lower case letters"),
        (ENTRY + "    origins: [https://a.example/path]\n", 5, "is not an origin"),
        (ENTRY + "    events_per_s: 0\n", 5, "events_per_s"),
        (ENTRY.replace("public", "server") + "    origins: [https://a.example]\n", 2, "only a public key has origins"),
        (ENTRY.replace("public", "server") + "    burst: 5\n", 2, "burst needs events_per_s"),
        (ENTRY + ENTRY.split("\n", 1)[1], 1, "stands twice"),
        (f"{ENTRY}  - name: web\n    sha256: {HASH[::-1]}\n    kind: any\n    workspace: other\n", 1, "two workspaces"),
        ("keys: 5\n", 1, "keys"),
        ("- a\n", 1, "valid dictionary"),
        ("keys:\n  - name: 'web\n", 3, "YAML"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(tmp_path: Path, text: str, line: int, what: str):
    file = file_with(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        read_write_keys(file)

    assert str(caught.value).startswith(f"{file}, line {line}: ")
    assert what in str(caught.value)


def test_plain_keys_of_the_settings_are_for_trials(tmp_path: Path):
    keys = load_write_keys(tmp_path, " first-key,second-key,,", "shop")

    first, second = keys.find("first-key"), keys.find("second-key")
    assert first is not None
    assert second is not None
    assert len(keys) == 2
    assert (first.workspace, first.kind, first.rate) == ("shop", "any", None)
    assert first.name != second.name


def test_the_source_of_a_plain_key_is_the_same_whatever_keys_stand_beside_it():
    assert trial_keys("aaaa,bbbb", "shop")[1].name == trial_keys("bbbb", "shop")[0].name


def test_a_plain_key_that_stands_twice_is_refused(tmp_path: Path):
    plain, lines = new_write_key("web", workspace="shop")
    (tmp_path / "write_keys.yaml").write_text(f"keys:\n{lines}")

    with pytest.raises(ConfigError, match=r"TIDEWIRE_WRITE_KEYS: the key with SHA-256 .*… stands twice\. Take one"):
        trial_keys("first-key,first-key", "shop")
    with pytest.raises(ConfigError, match=r"stands twice here and in .*write_keys\.yaml") as caught:
        load_write_keys(tmp_path, plain, "other")
    assert plain not in str(caught.value)


def test_a_plain_key_that_is_too_short_is_refused():
    with pytest.raises(ConfigError, match="4 to 200 characters"):
        trial_keys("abc", "shop")


def key(kind: str, *origins: str) -> WriteKey:
    return WriteKey(name="k", sha256=HASH, kind=kind, origins=origins)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origins", "origin", "is_allowed"),
    [
        ([], "https://anywhere.example", True),
        (["https://shop.example"], "https://shop.example", True),
        (["https://shop.example"], "HTTPS://SHOP.EXAMPLE", True),
        (["https://shop.example"], "http://shop.example", False),
        (["https://shop.example"], "https://shop.example:8443", False),
        (["https://shop.example"], "https://www.shop.example", False),
        (["https://shop.example"], "null", False),
        (["https://*.shop.example"], "https://www.shop.example", True),
        (["https://*.shop.example"], "https://a.b.shop.example", True),
        (["https://*.shop.example"], "https://shop.example", False),
        (["https://*.shop.example"], "https://evilshop.example", False),
        (["https://*.shop.example"], "https://www.shop.example.evil.example", False),
        (["https://*.shop.example:8443"], "https://www.shop.example:8443", True),
        (["https://*.shop.example"], "https://www.shop.example:99999", False),
        (["https://*.shop.example"], "https://[", False),
    ],
)
def test_origins_bound_who_may_use_a_public_key(origins: list[str], origin: str, is_allowed: bool):
    assert key("public", *origins).allows(origin) is is_allowed


def test_a_server_key_is_for_no_browser_and_any_key_for_all():
    assert not key("server").allows("https://shop.example")
    assert key("server").allows("")
    assert key("any").allows("https://shop.example")


def test_only_public_keys_have_a_rate_of_their_own():
    assert (key("public").rate, key("public").most_at_once) == (1_000, 10_000)
    assert key("server").rate is None


def test_keys_are_counted_and_listed():
    keys = WriteKeys([key("any")])

    assert [found.name for found in keys] == ["k"]
