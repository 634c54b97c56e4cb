"""What a version is probed on: its manifest never changes, so that with a key store nobody's words are in it."""

from pathlib import Path

from rlhf_online.training.judging import PROBES, probe_prompts
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest, ProbeSequence
from rlhf_online.versions.registry import Registry

ASKED = [(number, 7) for number in range(PROBES + 2)]


def registry(folder: Path, *probe: ProbeSequence) -> Registry:
    made = open_registry(folder)
    version = made.reserve("policy")
    made.stage(version)
    made.publish(Manifest(version=version, tuning="lora", probe=probe))
    return made


def test_a_version_is_probed_on_what_was_asked_last_or_where_that_is_sealed_on_the_first_ones_questions(
    tmp_path: Path,
) -> None:
    own = ProbeSequence(token_ids=(1, 2, 3, 4, 5), logprobs=(-1.0,) * 4)
    versions = registry(tmp_path / "with", own)
    assert list(probe_prompts(versions, ASKED, sealed=False)) == ASKED[2:]
    assert list(probe_prompts(versions, ASKED, sealed=True)) == [(1, 2)]
    assert list(probe_prompts(registry(tmp_path / "without"), ASKED, sealed=True)) == ASKED[2:]
