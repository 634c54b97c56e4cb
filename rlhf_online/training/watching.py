"""What the watch is shown: of voters the comparisons that are kept for replay, as words and declared traits; of a line
of versions what the gate measured of each."""

from rlhf_online.training.parts import TrainerParts
from rlhf_online.training.progress import JudgedVersion, Progress
from rlhf_online.watch import segments, sycophancy, voters
from rlhf_online.watch.line import Line


def watch_voters(parts: TrainerParts) -> None:
    """Tell whether people judge otherwise than they did, who votes for which trait, and for which word, as nobody else
    does, and whose votes were foretold worse."""
    votes, reward = parts.watched, parts.learners.reward
    decode = parts.learners.tokenizer.decode
    parts.reporter.watch("drift", reward.drift.reading(lambda token: decode([token]) or f"token {token}"))
    votes.show(reward.comparisons, reward.foretold)
    parts.reporter.watch("tampering", voters.reading(votes.by_trait(), "declared traits"))
    parts.reporter.watch("poison", voters.reading(votes.by_word(), "words"))
    parts.reporter.watch("segments", segments.reading(votes.by_segment()))


def watch_line(parts: TrainerParts, progress: Progress, judged: JudgedVersion) -> None:
    """Add a version that passed to its line, and tell what that has come to."""
    line = Line.from_json(progress.line).after(
        judged.version, judged.parent, judged.reference, judged.kl, judged.figures
    )
    progress.line = line.to_json()
    for monitor, reading in line.readings(parts.settings.gate.proxy_gap.max).items():
        parts.reporter.watch(monitor, reading)


def watch_sycophancy(parts: TrainerParts) -> None:
    """Tell whether the version in memory yields to what askers think."""
    learners = parts.learners
    asked = sycophancy.Asked(
        decode=learners.tokenizer.decode,
        edited=learners.tokenizer.edited,
        begins=lambda word: learners.tokenizer.answer_ids(word)[:-1],
        logprobs=learners.logprobs,
    )
    views = parts.settings.gate.traits.agreement.views
    probes = sycophancy.probe(parts.intake.policy_inputs.prompts, views, asked)
    parts.reporter.watch("sycophancy", sycophancy.reading(probes))
