"""Every record of a spool counts once, in whatever order and however often it comes, in a few bytes."""

import json
import random

from rlhf_online.feedback.delivered import DeliveredOffsets, IntervalSet


def size(numbers: IntervalSet) -> int:
    return len(json.dumps(numbers.to_json()))


def test_any_order_with_gaps_and_repeats_is_the_same_as_a_set():
    for seed in range(20):
        rng = random.Random(seed)
        top = rng.choice([50, 2_000, 20_000])
        sent = [number for number in range(top) if rng.random() < rng.choice([0.5, 0.99, 1.0])]
        arrivals = sorted(
            sent + rng.choices(sent, k=200), key=lambda number: number + rng.uniform(0, rng.choice([1, 4_000]))
        )
        numbers, known = IntervalSet(), set[int]()
        for number in arrivals:
            assert numbers.add(number) == (number not in known)
            known.add(number)
            if rng.random() < 0.001:
                numbers = IntervalSet.from_json(json.loads(json.dumps(numbers.to_json())))
        assert not any(numbers.add(number) for number in known)
        assert all(numbers.add(number) for number in range(top) if number not in known)


def test_a_record_that_expired_while_its_successors_landed_is_taken_when_it_comes():
    taken = DeliveredOffsets()
    assert [taken.add("spool", number) for number in (6, 7, 5, 6, 7)] == [True, True, True, False, False]


def test_spools_are_told_apart():
    taken = DeliveredOffsets()
    assert taken.add("one", 5) and taken.add("two", 5)
    again = DeliveredOffsets.from_json(json.loads(json.dumps(taken.to_json())))
    assert not again.add("one", 5) and not again.add("two", 5) and again.add("three", 5)


def test_a_million_records_in_order_are_one_run_and_each_gap_costs_one_chunk():
    numbers = IntervalSet()
    gaps = {300_000, 700_000}
    for number in range(1 << 20):
        if number not in gaps:
            numbers.add(number)
    assert size(numbers) < 1_000
    assert numbers.add(300_000) and numbers.add(700_000)
    assert numbers.to_json() == {"runs": [[0, 1024]], "partial": {}}


def test_chunks_in_any_order_become_one_run():
    rng = random.Random(1)
    chunks = list(range(64))
    rng.shuffle(chunks)
    numbers = IntervalSet()
    for chunk in chunks:
        for number in range(1024 * chunk, 1024 * chunk + 1024):
            assert numbers.add(number)
    assert numbers.to_json() == {"runs": [[0, 64]], "partial": {}}
