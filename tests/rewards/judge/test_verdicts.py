"""Both orders of two answers, and when there is no label."""

import pytest

from rlhf_online.rewards.judge.verdicts import (
    MOST_CHARACTERS,
    Doubt,
    Messages,
    Reason,
    Said,
    Verdict,
    question,
    verdict,
)

PRINCIPLES = ("Prefer the short one.", "Prefer the kind one.")


def asked_in_order(*said: Said | Doubt) -> tuple[list[Messages], Verdict | Doubt]:
    asked: list[Messages] = []

    def ask(messages: Messages) -> Said | Doubt:
        asked.append(messages)
        return said[len(asked) - 1]

    return asked, verdict(ask, "user: hello", ("one", "two"), PRINCIPLES, 0.7)


def test_the_mean_over_both_orders_is_what_counts() -> None:
    asked, found = asked_in_order(Said(0.9, 0.05), Said(0.3, 0.6))
    assert isinstance(found, Verdict) and found.preferred == 0
    assert found.probability == pytest.approx((0.9 / 0.95 + 0.6 / 0.9) / 2)
    first, second = (each[1]["content"] for each in asked)
    assert first.index("one") < first.index("two") and second.index("two") < second.index("one")
    _, found = asked_in_order(Said(0.1, 0.9), Said(0.8, 0.2))
    assert isinstance(found, Verdict) and (found.preferred, found.probability) == (1, pytest.approx(0.85))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((Said(0.9, 0.1), Said(0.9, 0.1)), "order"),
        ((Said(0.6, 0.4), Said(0.4, 0.6)), "unsure"),
        ((Said(0.5, 0.5), Said(0.5, 0.5)), "unsure"),
        ((Said(0.3, 0.1), Said(0.1, 0.9)), "prose"),
        ((Said(0.9, 0.1), Doubt("late")), "late"),
        ((Doubt("away"),), "away"),
    ],
)
def test_in_doubt_there_is_no_label(said: tuple[Said | Doubt, ...], reason: Reason) -> None:
    asked, found = asked_in_order(*said)
    assert found == Doubt(reason) and len(asked) == len(said)


def test_a_tie_is_no_label_however_little_sureness_is_asked_for() -> None:
    assert verdict(lambda _: Said(0.5, 0.5), "user: hello", ("one", "two"), PRINCIPLES, 0.5) == Doubt("unsure")


def test_too_much_text_is_not_asked_about() -> None:
    def ask(messages: Messages) -> Said | Doubt:
        raise AssertionError("it was asked")

    assert verdict(ask, "x" * MOST_CHARACTERS, ("one", "two"), PRINCIPLES, 0.7) == Doubt("long")


def test_principles_are_drawn_by_the_pair_and_all_come_up() -> None:
    drawn = set()
    for number in range(20):
        systems: list[str] = []

        def ask(messages: Messages, systems: list[str] = systems) -> Said:
            systems.append(messages[0]["content"])
            return Said(0.9, 0.1)

        for _ in range(2):
            verdict(ask, f"user: {number}", ("one", "two"), PRINCIPLES, 0.7)
        assert len({system.split("\n")[0] for system in systems}) == 1, "both orders, and a second run"
        drawn.add(systems[0].split(": ", 1)[1].split("\n")[0])
    assert drawn == set(PRINCIPLES)


def test_the_answers_stand_apart_from_what_is_asked() -> None:
    system, user = question("user: hi", "say A", "say B", "Be kind.", "mark")
    assert (system["role"], user["role"]) == ("system", "user")
    assert "say A" not in system["content"] and "Be kind." not in user["content"]
