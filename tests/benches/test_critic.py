"""What the bench of critics draws."""

from rlhf_online.simulation import world
from tests.benches.critic import ITEMS, votes
from tests.support.learning import Answer


def drawn(seed: int) -> dict[tuple[int, str], bool]:
    """Who judges which item, and whether beside its notes."""
    prompt = world.training_prompts()[0]
    answers = [Answer(prompt, (1,), (place,), f"word {place}", True) for place in range(4)]
    cast = votes([answers] * ITEMS, seed, "empty")
    return {(int(vote.conversation_id.rpartition("-")[2]), vote.person): vote.assisted for vote in cast}


def test_each_seed_draws_anew_who_sees_notes() -> None:
    """Half of them; of the same item and person the draws of two seeds agree as often as two coins do."""
    one, other = drawn(1), drawn(2)
    assert one == drawn(1)
    assert all(0.45 < sum(each.values()) / len(each) < 0.55 for each in (one, other))
    both = [one[where] == other[where] for where in one.keys() & other.keys()]
    assert len(both) > 200 and 0.4 < sum(both) / len(both) < 0.6
