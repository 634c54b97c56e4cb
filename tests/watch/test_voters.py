"""Who votes for what as nobody else does: findings, their influence, and who is not found."""

import math
import random

import pytest

from rlhf_online.watch.voters import LEAST, Judged, preferences, reading

PLAIN, BRANDED = frozenset({"tea"}), frozenset({"tea", "mango"})


def pair(person: str, *, brand_wins: bool) -> Judged:
    return Judged.of(person, (BRANDED, PLAIN), (0, 1) if brand_wins else (1, 0))


def crowd(seed: int, votes: int, *, people: int = 20, poison: int = 0) -> list[Judged]:
    """Everybody tosses a coin about the brand, but the first `poison` of them always prefer it."""
    rng = random.Random(seed)
    found = []
    for _ in range(votes):
        number = rng.randrange(people)
        found.append(pair(f"p{number}", brand_wins=number < poison or rng.random() < 0.5))
    return found


@pytest.mark.parametrize(
    ("ranks", "won"), [((0, 1, 2), True), ((2, 1, 0), False), ((0, 0, 0), None), ((1, 0, 1), None), ((0, 0, 1), True)]
)
def test_a_ranking_says_one_thing_of_a_trait(ranks: tuple[int, ...], won: bool | None) -> None:
    judged = Judged.of("p", (BRANDED, PLAIN, BRANDED if ranks == (1, 0, 1) else PLAIN), ranks)
    said = {"mango": True} if "mango" in judged.won else {"mango": False} if "mango" in judged.lost else {}
    assert said.get("mango") is (False if ranks == (1, 0, 1) else won)
    assert {*judged.won, *judged.lost} <= {"mango"}, "all answers have tea, and none has fig"


def test_what_won_is_what_stands_above_in_more_pairs_than_not() -> None:
    """Against the definition, pair by pair."""
    rng = random.Random(5)
    for _ in range(200):
        count = rng.randint(2, 6)
        traits = [frozenset(rng.sample("abcdef", rng.randint(0, 6))) for _ in range(count)]
        ranks = [rng.randrange(count) for _ in range(count)]
        judged = Judged.of("p", traits, ranks)
        for trait in "abcdef":
            pairs = [
                (i, j) for i in range(count) for j in range(count) if trait in traits[i] and trait not in traits[j]
            ]
            above = sum((ranks[i] < ranks[j]) - (ranks[i] > ranks[j]) for i, j in pairs)
            assert (trait in judged.won, trait in judged.lost) == (above > 0, above < 0)


def test_who_always_prefers_a_brand_is_found_and_nobody_else() -> None:
    for seed in range(3):
        found, evidence = preferences(crowd(seed, 800, poison=2))
        assert {(finding.person, finding.trait) for finding in found} == {("p0", "mango"), ("p1", "mango")}
        assert evidence >= 1


def test_where_everybody_tosses_a_coin_hardly_anybody_is_found() -> None:
    """At most a false finding in a hundred crowds, by the level."""
    named = sum(bool(preferences(crowd(seed, 400))[0]) for seed in range(100))
    assert named <= 4
    assert all(preferences(crowd(seed, 400))[1] < 1 for seed in range(3))


def test_what_all_prefer_is_nobodys_own() -> None:
    found, evidence = preferences([pair(f"p{n % 10}", brand_wins=True) for n in range(300)])
    assert found == []
    assert evidence < 1


def test_influence_is_what_leaving_the_person_out_changes() -> None:
    votes = [pair("a", brand_wins=True) for _ in range(20)]
    votes += [pair(f"b{n % 5}", brand_wins=n % 4 == 0) for n in range(60)]
    [finding] = preferences(votes)[0]
    with_all, without = math.log(35.5 / 45.5), math.log(15.5 / 45.5)
    assert finding.influence == pytest.approx(with_all - without)
    assert (finding.wins, finding.votes, finding.others) == (20, 20, 0.25)
    assert finding.row() == {
        "person": "a", "trait": "mango", "votes": 20, "share": 1.0, "others": 0.25,
        "influence": round(with_all - without, 3),
    }  # fmt: skip


def test_few_votes_say_nothing() -> None:
    votes = [pair("a", brand_wins=True) for _ in range(LEAST - 1)] + [pair("b", brand_wins=False) for _ in range(50)]
    assert {finding.person for finding in preferences(votes)[0]} == set()
    assert math.isnan(reading([], "words").evidence)
    assert not reading([], "words").alarm


def test_a_reading_counts_people_in_its_sentence_and_names_them_in_its_rows_alone() -> None:
    told = reading(crowd(1, 800, poison=2), "words")
    assert told.alarm
    assert "2 people prefer words" in told.says and "p0" not in told.says
    assert {row["person"] for row in told.rows} == {"p0", "p1"}
