"""Codes of coupons: what they look like, and how they are made so that none comes twice.

A generated code is `PREFIX-BODY`. Its body is the number of the code in its series, taken through a permutation of all
bodies of its length that only the series' seed knows, and a check character. A permutation sends no two numbers to one
body: so no code comes twice, without looking; and who has seen some knows nothing of the others.

The permutation is a Feistel network over the digits as FF1 of NIST SP 800-38G has it (10 rounds, halves that differ by
a digit at most, addition in place of XOR), with keyed BLAKE2b as its round function.
"""

from __future__ import annotations

import re
from hashlib import blake2b

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without 0 O 1 I L, which people mix up; 31, a prime: see `_check_of`
SEED_BYTES = 32
SHORTEST, LONGEST = 8, 16  # characters behind the prefix
LONGEST_CODE = 64
UNLIKELY = 1_000_000  # of so many bodies at most one is ever a code
PREFIX = r"[A-Z0-9]{1,12}"

_ROUNDS = 10
_BASE = len(ALPHABET)
_PLACE = {letter: place for place, letter in enumerate(ALPHABET)}
_CODE = re.compile(rf"[A-Z0-9](?:[A-Z0-9_-]{{0,{LONGEST_CODE - 2}}}[A-Z0-9])?\Z")


def normal(text: str) -> str:
    """A code as it is compared: however it was typed; empty where it can be none.

    >>> normal(" spring-7kxq "), normal("two words")
    ('SPRING-7KXQ', '')
    """
    code = text.strip().upper()
    return code if _CODE.match(code) else ""


def most_codes(length: int) -> int:
    """How many codes a series of a length may give: so few that a guess of `UNLIKELY` hits one.

    >>> most_codes(8), most_codes(10)
    (27512, 26439622)
    """
    return _power(length - 1) // UNLIKELY


def code_of(prefix: str, length: int, seed: bytes, number: int) -> str:
    """The code of a number.

    >>> code_of("SPRING", 8, bytes(32), 0), code_of("SPRING", 8, bytes(32), 1)
    ('SPRING-STADWBAE', 'SPRING-EUZUH563')
    """
    body = digits_of(permuted(seed, number, length - 1), length - 1)
    return f"{prefix}-{body}{_check_of(body)}"


def is_mistyped(code: str, prefix: str, length: int) -> bool:
    """Whether a code of a series is one that somebody typed wrong: any one wrong character, and any two that changed
    places, show."""
    body = code.removeprefix(f"{prefix}-")
    if body == code or len(body) != length or not set(body) <= _PLACE.keys():
        return True
    return _check_of(body[:-1]) != body[-1]


def permuted(seed: bytes, number: int, digits: int) -> int:
    """The number that a number below `31 ** digits` becomes: another for each.

    Raises:
        ValueError: the number has more digits.
    """
    size_of_halves = _power(digits // 2), _power(digits - digits // 2)
    if not 0 <= number < size_of_halves[0] * size_of_halves[1]:
        raise ValueError(f"{number} has more than {digits} digits")
    keyed = blake2b(key=seed, digest_size=16)  # 128 bits: what is left of them by a half of 2^40 is even
    left, right = divmod(number, size_of_halves[1])
    for turn in range(_ROUNDS):
        mixed = keyed.copy()
        mixed.update(b"%d %d %d" % (digits, turn, right))
        left, right = right, (left + int.from_bytes(mixed.digest())) % size_of_halves[turn % 2]
    return left * size_of_halves[1] + right


def _power(digits: int) -> int:
    return int(_BASE**digits)


def digits_of(number: int, digits: int) -> str:
    letters = []
    for _ in range(digits):
        number, place = divmod(number, _BASE)
        letters.append(ALPHABET[place])
    return "".join(reversed(letters))


def _check_of(body: str) -> str:
    """The check character. Its weights differ, and 31 is prime: so it finds any wrong character and any two that
    changed places."""
    return ALPHABET[sum(weight * _PLACE[letter] for weight, letter in enumerate(body, 1)) % _BASE]
