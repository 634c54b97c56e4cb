"""Comparisons of which only the size matters."""

from rlhf_online.feedback.votes import Candidate, Comparison


def comparison(answers: int, tokens: tuple[int, ...]) -> Comparison:
    """So many answers, each of these tokens, best first."""
    return Comparison(
        event_id="e",
        conversation_id="c",
        person="p",
        prompt_token_ids=(1, 20, 3),
        candidates=tuple(Candidate(token_ids=tokens) for _ in range(answers)),
        tiers=tuple((index,) for index in range(answers)),
    )
