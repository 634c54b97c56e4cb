"""What a vote may be about, for the models to learn from it. Pure."""

from dataclasses import dataclass

from rlhf_online.errors import UnusableVote
from rlhf_online.feedback.votes import Vote
from rlhf_online.models.limits import ModelLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteLimits:
    """`models`: what they can read. `objectives`: those that there are.

    `tokens`: what memory holds of one vote, whose answers are all one batch element: their number times the longest,
    prompts included.
    """

    models: ModelLimits
    objectives: tuple[str, ...]
    tokens: int


def check_vote(vote: Vote, limits: VoteLimits) -> None:
    """Raises UnusableVote for another objective, for answers that the models cannot read, or not all at once."""
    if vote.objective and vote.objective not in limits.objectives:
        known = ", ".join(limits.objectives)
        raise UnusableVote("objective", f"its objective {vote.objective!r} is none of {known}")
    answers = [candidate.token_ids for candidate in vote.candidates]
    size = len(answers) * (len(vote.prompt_token_ids) + max(map(len, answers)))
    if size > limits.tokens:
        why = f"its {len(answers)} answers take {size} tokens at once, and {limits.tokens} can be learned from"
        raise UnusableVote("large", why)
    for answer in answers:
        if reason := limits.models.unreadable(vote.prompt_token_ids, answer):
            raise UnusableVote(reason, _why_unreadable(reason, len(answer), limits.models))


def _why_unreadable(reason: str, tokens: int, limits: ModelLimits) -> str:
    match reason:
        case "vocabulary":
            return f"its tokens are not of this model's vocabulary of {limits.vocabulary}"
        case "context":
            return f"an answer of {tokens} tokens does not fit a context of {limits.context}"
        case _:
            return "an answer of it, or its prompt, has no token"
