"""Before rollouts are gathered and scored: the committed reward version scores, and the live policy version serves.

Both may have to be waited for, and either may turn out to be another one than expected.
"""

from functools import partial

import structlog

from rlhf_online.training.commit import commit
from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import Progress

REWARD_SERVED_WITHIN_S = 10.0


def serve_reward(parts: TrainerParts, progress: Progress) -> None:
    """Publish the committed reward version and wait until the reward service scores with it.

    A version that the service refused, or that is not the newest, is published again under a new name.
    """

    def publish_and_wait() -> bool:
        if not parts.publisher.publish_reward(progress):
            return False
        parts.rewards.wait_for_version(progress.reward_version, REWARD_SERVED_WITHIN_S)
        return True

    while not parts.retrier.call("waiting for the reward service", publish_and_wait):
        progress.reward_version = parts.retrier.call("naming a version", lambda: parts.registry.reserve("reward"))
        commit(parts, progress)


def serve_policy(parts: TrainerParts, progress: Progress, prompt: tuple[int, ...]) -> None:
    """Load the live weights into memory unless they are there, and wait until the engine serves them.

    If an operator has chosen another reference, it is taken up here: KL counts from it. `prompt` is any prompt that the
    engine can answer: its answer tells which version serves.
    """
    log = structlog.get_logger()
    while True:
        live, reference = parts.retrier.call(
            "reading the live version", lambda: (parts.registry.live("policy"), parts.registry.references()[-1])
        )
        assert live is not None, "a live policy version never goes away"
        if (live, reference) != (progress.policy_version, progress.reference):
            new_reference = reference != progress.reference
            if live != progress.policy_version:
                log.warning("the live version is another one", live=live, in_memory=progress.policy_version)
            if new_reference:
                log.warning("KL counts from another reference", reference=reference, before=progress.reference)
            follow(parts, live, reference, new_reference=new_reference)
            progress.policy_version, progress.reference = live, reference
            commit(parts, progress, policy=True)
        if parts.experience.wait_until_served(live, prompt):
            return


def follow(parts: TrainerParts, version: str, reference: str, *, new_reference: bool = False) -> None:
    """Have the policy in memory be that version; see `Learners.follow`. Raises Stopped, VersionCorrupt."""
    folder = parts.retrier.call("fetching a policy's version", partial(parts.registry.path, version))
    base = parts.retrier.call("fetching the reference", partial(parts.registry.path, reference))
    parts.learners.follow(folder, base, new_reference=new_reference)
