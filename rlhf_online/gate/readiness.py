"""Is a reward model good enough for the policy to learn from, or to be judged by?"""

from collections.abc import Mapping

CHANCE = 0.5


def reward_model_blocks(
    figures: Mapping[str, float], least_accuracy: float, asks: str, *, which: str = "reward model"
) -> str:
    """Why the policy may not learn yet, "" if it may: `figures` are those of the reward model on held-out votes, and
    `trained_objectives`, the number of objectives that count and that votes have ordered answers by. `asks` is the
    setting that asks for `least_accuracy`.

    Enough is an accuracy on comparisons, or on thumbs the share of answers with a thumb up that are above those with a
    thumb down, whose 95 % interval lies above `least_accuracy`; so few votes are never enough by luck.
    """
    if not figures.get("trained_objectives", 1):
        return f"no vote has taught the {which} what is better: a comparison does, or thumbs up and thumbs down"
    low = max(figures.get("accuracy_low", 0.0), figures.get("thumb_auc_low", 0.0))
    if least_accuracy == 0 or low > least_accuracy:
        return ""
    pairs, thumbs = figures.get("accuracy_n", 0), figures.get("thumb_n", 0)
    return (
        f"the {which} orders held-out votes rightly more than {low:.2f} of the time, by {pairs:g} pairs and "
        f"{thumbs:g} thumbs, and {asks} asks for more than {least_accuracy:g}: more votes are needed"
    )
