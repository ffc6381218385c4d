"""Which keys are one person: in any order, with crashes, and undone."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.event import PUBLIC_ALIAS, Event
from tests.streams.world import World, an_event, people_of


def messages(world: World, key: str) -> dict[str, int]:
    return world.people()[key][1]["tally"]["messages"]  # type: ignore[index,return-value]


def counts_of(people: dict[str, tuple[frozenset[str], dict[str, object]]]) -> list[int]:
    """How often each message was counted, over all people."""
    tallies = [shown["tally"]["messages"] for _, shown in people.values() if "tally" in shown]  # type: ignore[index]
    return [count for tally in tallies for count in tally.values()]


def test_two_devices_and_one_user_are_one_person():
    events = [
        an_event(1, anonymous="phone"), an_event(2, anonymous="laptop"), an_event(3, user="u", anonymous="phone"),
        an_event(4, user="u", anonymous="laptop"), an_event(5, anonymous="phone"),
    ]  # fmt: skip

    people = people_of(events)

    assert set(people) == {"w/u:u"}
    keys, shown = people["w/u:u"]
    assert keys == {"w/u:u", "w/a:phone", "w/a:laptop"}
    assert shown == {"tally": {"messages": {f"m{i}": 1 for i in range(1, 6)}}}


def test_merges_in_every_order_give_one_person():
    events = [
        an_event(1, anonymous="a"), an_event(2, anonymous="b"), an_event(3, user="u", anonymous="a"),
        an_event(4, user="u", anonymous="b"), an_event(5, user="v", previous="u"),
    ]  # fmt: skip

    outcomes = [people_of(order, seed) for seed, order in enumerate(itertools.permutations(events))]

    assert set(outcomes[0]) == {"w/u:u"}  # of two users the lesser key stands for both
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_a_merge_can_be_undone_and_everything_goes_back_to_whom_it_came_from():
    world = World()
    for event in (an_event(1, anonymous="a"), an_event(2, user="u"), an_event(3, user="u", anonymous="a"),
                  an_event(4, anonymous="a")):  # fmt: skip
        world.send(event)
    world.settle()
    assert set(world.people()) == {"w/u:u"}

    world.unmerge("w/a:a")
    world.send(an_event(5, anonymous="a"))
    world.send(an_event(6, user="u", anonymous="a"))  # the same evidence again: what a person undid stays undone
    world.settle()

    assert set(world.people()) == {"w/u:u", "w/a:a"}
    assert messages(world, "w/a:a") == {"m1": 1, "m4": 1, "m5": 1}
    assert messages(world, "w/u:u") == {"m2": 1, "m3": 1, "m6": 1}
    assert [line.kind for line in world.decisions.values()] == ["merged", "unmerged"]


def test_an_unmerge_in_the_middle_of_a_chain_takes_along_what_came_with_it():
    world = World()
    for event in (an_event(1, anonymous="a"), an_event(2, user="v", anonymous="a"),
                  an_event(3, user="u", previous="v")):  # fmt: skip
        world.send(event)
    world.settle()
    assert world.people()["w/u:u"][0] == {"w/u:u", "w/u:v", "w/a:a", "w/a:v"}

    world.unmerge("w/u:v")
    world.settle()

    assert world.people()["w/u:u"][0] == {"w/u:u", "w/a:v"}
    assert world.people()["w/u:v"][0] == {"w/u:v", "w/a:a"}


def test_the_earliest_evidence_decides_whose_a_shared_device_is():
    events = [
        an_event(1, anonymous="tv"), an_event(2, user="anna", anonymous="tv"), an_event(3, user="bert", anonymous="tv"),
        an_event(4, anonymous="tv"),
    ]  # fmt: skip

    outcomes = [people_of(order, seed) for seed, order in enumerate(itertools.permutations(events))]

    assert outcomes[0]["w/u:anna"][0] == {"w/u:anna", "w/a:tv"}
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_two_users_who_name_each_other_become_one():
    events = [an_event(1, user="a", previous="b"), an_event(2, user="b", previous="a"), an_event(3, user="a"),
              an_event(4, user="b")]  # fmt: skip

    outcomes = [people_of(order, seed) for seed, order in enumerate(itertools.permutations(events))]

    assert set(outcomes[0]) == {"w/u:a"}
    assert counts_of(outcomes[0]) == [1, 1, 1, 1]
    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_one_event_that_merges_two_keys_makes_two_decisions():
    world = World()

    world.send(an_event(1, user="u", previous="v"))  # both the user and the visitor named v
    world.settle()

    merged = {(line.kind, line.about) for line in world.decisions.values()}
    assert merged == {("merged", "w/u:v"), ("merged", "w/a:v")}


def test_what_anybody_may_send_joins_visitors_and_never_two_users():
    world = World()
    for event in (an_event(1, user="victim"), an_event(2, anonymous="visitor"),
                  an_event(3, user="thief", previous="victim", flags=(PUBLIC_ALIAS,)),
                  an_event(4, user="victim", previous="thief", flags=(PUBLIC_ALIAS,)),
                  an_event(5, user="thief", previous="visitor", flags=(PUBLIC_ALIAS,))):  # fmt: skip
        world.send(event)

    world.settle()

    assert messages(world, "w/u:victim") == {"m1": 1, "m4": 1}
    assert messages(world, "w/u:thief") == {"m2": 1, "m3": 1, "m5": 1}


def test_a_person_who_claims_too_many_ids_is_stopped_and_it_is_said():
    world = World(most_links=3)
    for i in range(10):
        world.send(an_event(i, user="robot", anonymous=f"a{i}"))

    world.settle()

    assert len(world.people()["w/u:robot"][0]) == 4
    (refusal,) = (line for line in world.decisions.values() if line.kind == "merge_refused")
    assert refusal.facts == {"why": "3 ids are the most"}


def test_a_record_in_the_wrong_partition_is_handled_in_the_right_one():
    world = World(partitions=3)
    for partition in range(3):
        world.send(an_event(partition, anonymous="a"), partition)

    world.settle(crash=0.2)

    assert messages(world, "w/a:a") == {"m0": 1, "m1": 1, "m2": 1}
    assert sum(1 for owner in world.owners if "w/a:a" in owner.records and owner.records["w/a:a"].revision) == 1


histories = st.lists(
    st.builds(
        lambda user, anonymous, previous, minute: (user, anonymous, previous if user else "", minute),
        st.sampled_from(["", "u", "v", "x"]), st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["", "", "", "x", "u", "v"]), st.integers(0, 30),
    ),
    min_size=1, max_size=14,
)  # fmt: skip


def events_of(history: list[tuple[str, str, str, int]]) -> list[Event]:
    events = []
    for i, (user, anonymous, previous, minute) in enumerate(history):
        previous = "" if previous == user else previous
        events.append(an_event(i, user=user, anonymous=anonymous, previous=previous, minute=minute))
    return events


@given(histories, st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_arrival_duplicates_and_crashes_change_nothing(history, seed):
    events = events_of(history)
    shuffled = [*events, *events[: len(events) // 2]]
    random.Random(seed).shuffle(shuffled)

    straight = people_of(events)
    disturbed = people_of(shuffled, seed, crash=0.1)

    assert disturbed == straight
    assert counts_of(straight) == [1] * len(events)


@given(histories, st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_whatever_is_undone_meanwhile_every_message_is_counted_once_and_none_waits_for_ever(history, seed):
    rng = random.Random(seed)
    events = events_of(history)
    arriving = [*events, *rng.sample(events, len(events) // 2)]
    rng.shuffle(arriving)
    world = World(seed, partitions=rng.choice([1, 2, 3, 5]))

    for event in arriving:
        world.send(event)
        if rng.random() < 0.15:
            world.unmerge(rng.choice(["w/a:a", "w/a:b", "w/a:u", "w/u:v", "w/u:x"]))
        if rng.random() < 0.2:
            world.settle(crash=0.15)
    world.settle(crash=0.15)

    assert counts_of(world.people()) == [1] * len(events)
    assert all(not customer.held for owner in world.owners for customer in owner.records.values())
