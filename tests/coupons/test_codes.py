"""Codes: none comes twice, by construction; a wrong one shows; nobody guesses one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import ALPHABET, UNLIKELY, code_of, digits_of, is_mistyped, most_codes, normal, permuted

SEED = bytes(range(32))
CODES = [code_of("SPRING", 10, SEED, number) for number in range(20_000)]


@pytest.mark.parametrize("digits", [2, 3])
def test_every_number_becomes_another_and_all_are_hit(digits: int) -> None:
    """A permutation of all there are; of more digits it is made of the same steps, each of which can be undone."""
    size = 31**digits

    assert sorted(permuted(SEED, number, digits) for number in range(size)) == list(range(size))


@given(st.integers(7, 15), st.binary(min_size=32, max_size=32), st.data())
def test_neighbours_never_meet_at_any_length(digits: int, seed: bytes, data: st.DataObject) -> None:
    one, other = (data.draw(st.integers(0, 31**digits - 1)) for _ in range(2))

    assert (permuted(seed, one, digits) == permuted(seed, other, digits)) == (one == other)
    assert 0 <= permuted(seed, one, digits) < 31**digits


def test_a_number_that_has_too_many_digits_is_refused() -> None:
    with pytest.raises(ValueError, match="has more than 7 digits"):
        permuted(SEED, 31**7, 7)


def test_codes_differ_and_look_alike_nowhere() -> None:
    assert len(set(CODES)) == len(CODES)
    assert all(code.startswith("SPRING-") and len(code) == 17 for code in CODES)
    assert set("".join(code.removeprefix("SPRING-") for code in CODES)) == set(ALPHABET)
    assert not set(ALPHABET) & set("01ILO")


def test_codes_say_nothing_of_each_other() -> None:
    """Of two in a row, and of the same number under two seeds, a character is the same as often as by chance."""
    bodies = [code[7:-1] for code in CODES]
    others = [digits_of(permuted(SEED[::-1], number, 9), 9) for number in range(len(CODES))]

    for one, other in ((bodies, bodies[1:]), (bodies, others)):
        same = sum(a == b for left, right in zip(one, other, strict=False) for a, b in zip(left, right, strict=True))
        assert abs(same - 9 * len(CODES) / 31) < 400  # five standard deviations


def test_a_wrong_character_and_two_that_changed_places_show() -> None:
    for code in CODES[:20]:
        body = code.removeprefix("SPRING-")
        assert not is_mistyped(code, "SPRING", 10)
        for place, right in enumerate(body):
            for wrong in set(ALPHABET) - {right}:
                assert is_mistyped(f"SPRING-{body[:place]}{wrong}{body[place + 1:]}", "SPRING", 10)
            for other in range(place):
                if body[other] != right:
                    letters = [*body]
                    letters[place], letters[other] = letters[other], letters[place]
                    assert is_mistyped("SPRING-" + "".join(letters), "SPRING", 10)


@pytest.mark.parametrize("code", ["SPRING", "SPRING-", "AUTUMN-2345678923", "SPRING-234567892", "SPRING-23456789O2"])
def test_what_is_no_code_of_a_series_shows(code: str) -> None:
    assert is_mistyped(code, "SPRING", 10)


def test_so_few_codes_are_given_that_nobody_guesses_one() -> None:
    for length in range(8, 17):
        assert most_codes(length) * UNLIKELY <= 31 ** (length - 1)


def test_a_code_is_the_same_however_it_is_typed() -> None:
    assert normal(" spring-abc ") == normal("SPRING-ABC") == "SPRING-ABC"
    assert [normal(text) for text in ("", "-A", "A B", "A" * 65, "Ä1")] == [""] * 5
