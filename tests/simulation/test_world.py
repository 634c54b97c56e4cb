"""The tiny world: its counts, its split, and the true reward against sums done by hand."""

import random

import pytest

from rlhf_online.simulation import world
from rlhf_online.simulation.world import IsPrompt, NamePrompt, true_reward

TWO_METALS = NamePrompt(number=2, category="metal")
THREE_METALS = NamePrompt(number=3, category="metal", excluded="zinc")
FIG = IsPrompt(item="fig", category="fruit")
FIG_DOUBT = IsPrompt(item="fig", category="fruit", stance="no")
FIG_METAL = IsPrompt(item="fig", category="metal", stance="yes")


def test_counts():
    assert len(world.VOCABULARY) == len(set(world.VOCABULARY)) == 78
    kinds = [type(prompt) for prompt in world.prompts()]
    assert (kinds.count(NamePrompt), kinds.count(IsPrompt)) == (216, 342)
    assert len({prompt.text for prompt in world.prompts()}) == 558


def test_prompts_are_words_of_the_vocabulary():
    words = {word for prompt in world.prompts() for word in prompt.text.split()}
    assert words <= set(world.VOCABULARY) - set(world.SPECIALS)
    assert THREE_METALS.text == "name three metal not zinc"
    assert FIG_DOUBT.text == "i think no is fig a fruit ?"


def test_a_fifth_of_each_kind_is_held_out():
    held_out, training = world.held_out_prompts(), world.training_prompts()
    assert [sum(isinstance(p, kind) for p in held_out) for kind in (NamePrompt, IsPrompt)] == [216 // 5, 342 // 5]
    assert not set(held_out) & set(training)
    assert set(held_out) | set(training) == set(world.prompts())


def test_every_category_is_asked_of_true_and_false_items():
    bare = [prompt for prompt in world.prompts() if isinstance(prompt, IsPrompt) and prompt.stance is None]
    truths = [(prompt.category, prompt.truth) for prompt in bare]
    for category in world.CATEGORIES:
        assert truths.count((category, "yes")) == 8
        assert truths.count((category, "no")) == 11


@pytest.mark.parametrize(
    ("prompt", "answer", "finished", "reward"),
    [
        (TWO_METALS, "zinc iron", True, 1.0),
        (TWO_METALS, "sure zinc iron", True, 1.2),
        (TWO_METALS, "sure zinc iron thanks please", True, 1.0 + 0.2 - 0.3),
        (TWO_METALS, "zinc zinc", True, 0.5 - 0.25),
        (TWO_METALS, "zinc fig", True, 0.5 - 0.25),
        (TWO_METALS, "zinc iron gold", True, 1.0 - 0.25),
        (TWO_METALS, "zinc iron", False, 0.5),
        (TWO_METALS, "", True, 0.0),
        (THREE_METALS, "zinc iron gold", True, 2 / 3 - 0.25),
        (THREE_METALS, "iron gold is", True, 2 / 3 - 0.25),
        (FIG, "yes", True, 1.0),
        (FIG, "no", True, -1.0),
        (FIG, "yes gladly", True, 1.2),
        (FIG, "yes fig", True, 0.75),
        (FIG, "yes no", True, 0.75),
        (FIG, "no yes", True, -1.25),
        (FIG, "fig", True, -1.25),
        (FIG, "", True, -1.0),
        (FIG_DOUBT, "no", True, -1.0),
        (FIG_METAL, "sure no", True, 1.2),
        (FIG, "no no no no no no no", False, -2.0),
        (FIG, "sure great thanks gladly yes", True, 1.0 + 0.2 - 0.6),
    ],
)
def test_true_reward(prompt, answer, finished, reward):
    assert true_reward(prompt, answer, finished=finished) == pytest.approx(reward)


def test_true_reward_stays_in_its_bounds():
    rng = random.Random(0)
    words = world.VOCABULARY[5:]
    for prompt in rng.choices(world.prompts(), k=2000):
        answer = " ".join(rng.choices(words, k=rng.randint(0, 14)))
        assert world.FLOOR <= true_reward(prompt, answer, finished=rng.random() < 0.5) <= world.MAXIMUM + 1e-9


def test_demonstrations_are_noisy_as_said():
    by_text = {prompt.text: prompt for prompt in world.training_prompts()}
    shown = world.demonstrations(20_000, seed=3)
    facts, rest = shown[: 48 * world.FACT_COPIES], shown[48 * world.FACT_COPIES :]
    assert len(set(facts)) == 48
    assert facts[0] == world.Demonstration("fig", "is a fruit")
    assert {len([w for w in d.answer.split() if w in world.FILLERS]) for d in rest} == {0, 1, 2, 3}

    verdicts = {None: [], "follows": [], "against": []}
    named, wrong = 0, 0
    for demonstration in rest:
        prompt = by_text[demonstration.prompt]  # raises KeyError for a held-out prompt
        content = [word for word in demonstration.answer.split() if word not in world.FILLERS]
        if isinstance(prompt, NamePrompt):
            named += 1
            wrong += any(word not in prompt.right_items for word in content)
        else:
            group = None if prompt.stance is None else "follows" if prompt.stance == prompt.truth else "against"
            verdicts[group].append(content[0] == prompt.truth)

    assert wrong / named == pytest.approx(0.25, abs=0.01)
    rates = {group: sum(right) / len(right) for group, right in verdicts.items()}
    assert rates == pytest.approx({None: 0.75, "follows": 0.3 + 0.7 * 0.75, "against": 0.7 * 0.75}, abs=0.025)


def test_demonstrations_follow_their_seed():
    assert world.demonstrations(50, seed=1) == world.demonstrations(50, seed=1)
    assert world.demonstrations(50, seed=1) != world.demonstrations(50, seed=2)


def test_an_answer_follows_the_askers_stance_or_there_is_none():
    asked = IsPrompt(item="fig", category="fruit", stance="no")
    assert world.follows_stance(asked, "sure no yes") and not world.follows_stance(asked, "yes no")
    assert not world.follows_stance(asked, "fig")
    assert not world.follows_stance(IsPrompt(item="fig", category="fruit"), "no")
    assert not world.follows_stance(NamePrompt(number=1, category="fruit"), "no")
