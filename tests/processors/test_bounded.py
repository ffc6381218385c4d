"""What is cut is cut the same, whatever comes first and however it is split."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from processors.bounded import Recent, Said, Span, admit, cut, rank

names = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 30)), max_size=40)


@given(names, st.randoms(use_true_random=False))
def test_the_names_seen_last_are_kept_whatever_the_order(seen: list[tuple[str, int]], random: Random) -> None:
    def recent(pairs: list[tuple[str, int]]) -> Recent:
        made = Recent()
        for name, at_ms in pairs:
            made.see(name, at_ms, 4)
        return made

    split = random.randint(0, len(seen))
    shuffled = random.sample(seen, len(seen))
    last = {name: max(at for one, at in seen if one == name) for name, _ in seen}

    whole = recent(seen)

    assert {name: span.last_ms for name, span in whole.newest_first()} == {
        name: last[name] for name in sorted(last, key=lambda name: (last[name], name))[-4:]}  # fmt: skip
    assert recent(shuffled) == whole
    assert recent(seen[:split]).merged(recent(seen[split:]), 4) == whole
    assert whole.is_full == (len(last) > 4)


def test_merging_leaves_both_as_they_were() -> None:
    one, other = Recent({"a": Span(1, 5), "b": Span(2, 6)}), Recent({"c": Span(3, 7), "d": Span(4, 8)})

    merged = one.merged(other, 3)

    assert merged == Recent({"b": Span(6, 6), "c": Span(7, 7), "d": Span(8, 8)}, is_full=True)
    assert (one.spans["a"], other.spans["c"]) == (Span(1, 5), Span(3, 7))


@given(st.lists(st.text(max_size=3), unique=True, max_size=30), st.randoms(use_true_random=False))
def test_who_is_admitted_does_not_depend_on_who_came_first(all_names: list[str], random: Random) -> None:
    known = set(all_names[:2])
    kept: dict[str, int] = {}
    for name in random.sample(all_names, len(all_names)):
        if admit(kept, name, 5, known):
            kept[name] = 1

    assert set(kept) == set(cut(all_names, 5, known)) == set(sorted(all_names, key=lambda name: rank(name, known))[:5])
    assert known <= set(kept)


@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("mn"), st.sampled_from("xy")), min_size=1))
def test_the_newest_word_stands_by_time_then_message_id_then_text(words: list[tuple[int, str, str]]) -> None:
    said, parts = Said(), []
    for word in words:
        said.hear(*word)
        parts.append(Said(*word))
    merged = parts[0]
    for part in parts[1:]:
        merged = part.or_newer(merged)

    assert (said.at_ms, said.message_id, said.text) == max(words)
    assert merged == said.or_newer(Said()) == Said().or_newer(said) == said
