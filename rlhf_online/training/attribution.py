"""What an update learned from, for the record of the version that comes of it (`rlhf_online.attribution`)."""

from collections.abc import Sequence

from rlhf_online.attribution.trained_on import AnswerUsed, TrainedOn, VoteUsed
from rlhf_online.feedback.votes import Vote
from rlhf_online.rollout.eligibility import answer_of
from rlhf_online.rollout.types import ScoredRollout
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.policy_update import PolicyReport
from rlhf_online.training.reward_update import RewardReport


def by_reward(report: RewardReport, *, after: str) -> TrainedOn:
    """Of an update of the reward model, which went on from the version `after`."""
    return TrainedOn(after=after, votes=tuple(_used(vote, new=vote.event_id in report.learned) for vote in report.used))


def by_policy(parts: TrainerParts, report: PolicyReport, scored: Sequence[ScoredRollout], *, after: str) -> TrainedOn:
    """Of an update of the policy: labels, or answers of the log and fresh ones to people's prompts."""
    learned = frozenset(report.learned)
    rollouts = [item.rollout for item in scored if item.rollout.rollout_id in learned]
    live = [rollout for rollout in rollouts if parts.ledger.known(rollout.rollout_id)]  # fresh ones are not claimed
    fresh = {rollout.prompt_token_ids for rollout in rollouts if not parts.ledger.known(rollout.rollout_id)}
    refs = [(answer_of(rollout.rollout_id), rollout.person) for rollout in live]
    return TrainedOn(
        after=after,
        votes=tuple(_used(vote, new=False) for vote in parts.learners.reward.thumbs if vote.event_id in learned),
        answers=tuple(
            AnswerUsed(completion_id=ref.completion_id, index=ref.index, person=person) for ref, person in refs
        ),
        asked=tuple(sorted({parts.intake.policy_inputs.asked_by(prompt) for prompt in fresh} - {""})),
    )


def _used(vote: Vote, *, new: bool) -> VoteUsed:
    return VoteUsed(
        event_id=vote.event_id,
        person=vote.person,
        completions=vote.completions,
        new=new,
        owners=tuple(owner for owner in vote.owners if owner != vote.person),
    )
