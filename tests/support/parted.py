"""A service whose people prefer what each new version replaced, whatever its gate predicted."""

from collections.abc import Iterator

from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import Answer, AnswerRef, Completion, Envelope, Feedback, Pairwise, Sampling, VersionSpan
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from rlhf_online.wire import encode

PEOPLE = 40


def fill(registry: Registry, log: LocalLog, versions: int, *, liked: float) -> list[str]:
    """So many versions after the first, each predicted to be better; of 40 people the share `liked` found it so.

    The first and the last are not compared; the names of all, oldest first.
    """
    names = [_published(registry, "")]
    for number in range(versions):
        names.append(_published(registry, names[-1], win_rate=0.55 + number / 100, samples=128.0))
        said = [log.append(encode(envelope)) for envelope in _said(names[-1], names[-2], round(liked * PEOPLE))]
        said[-1].result(10)
    return names


def _published(registry: Registry, parent: str, **gate: float) -> str:
    name = registry.reserve("policy")
    registry.stage(name)
    registry.publish(Manifest(version=name, tuning="lora", parent=parent, kl=0.1))
    registry.promote(name, gate=dict(gate))
    return name


def _said(version: str, parent: str, won: int) -> Iterator[Envelope]:
    """Each of PEOPLE was shown the two side by side."""
    for number in range(PEOPLE):
        person, comparison = f"{number:032x}", f"comparison {version} {number}"
        refs: dict[str, AnswerRef] = {}
        for writer in (version, parent):
            spans = (VersionSpan(policy_version=writer, first_token=0),)
            answer = Answer(index=0, text="so", token_ids=(1,), logprobs=(-1.0,), spans=spans, finish_reason="stop")
            name = f"{comparison} by {writer}"
            refs[writer] = AnswerRef(completion_id=name)
            asked = Completion(
                completion_id=name, conversation_id=f"talk {name}", person=person, messages=(), prompt_token_ids=(1,),
                answers=(answer,), sampling=Sampling(), started_ms=1, finished_ms=2, comparison_id=comparison,
            )  # fmt: skip
            yield Envelope(event_id=name, event=asked)
        better, worse = (version, parent) if number < won else (parent, version)
        kind = Pairwise(chosen=refs[better], rejected=refs[worse])
        vote = Feedback(conversation_id="", person=person, kind=kind, created_ms=3, comparison_id=comparison)
        yield Envelope(event_id=f"vote in {comparison}", event=vote)
