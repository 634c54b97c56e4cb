"""Every folder of the zoo from the start check to the preflight of what it learned."""

import re
from pathlib import Path

import pytest
import torch

from rlhf_online.engine import preflight
from rlhf_online.errors import InvalidInput
from rlhf_online.models import precision, trunk
from rlhf_online.models.check import raise_refusals, told
from rlhf_online.models.check.contents import inspect
from rlhf_online.models.first_probe import first_probe
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.models.trunk import Lora
from rlhf_online.training.sft.demonstrations import Demonstration
from rlhf_online.training.sft.fine_tuning import Passes, fine_tune
from rlhf_online.versions import open_registry
from rlhf_online.versions.genesis import genesis
from rlhf_online.versions.manifest import Manifest
from services.standalone.preconditions import token_bytes
from tests.zoo.models import ZOO, Animal, Tuning, copied, table
from tests.zoo.started import start

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
SHOWN = [
    Demonstration(
        messages=[{"role": "user", "content": "is zinc a metal"}],
        answer={"role": "assistant", "content": "yes zinc is a metal"},
    )
]


def named(animals: tuple[Animal, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("animal", animals, ids=lambda animal: animal.name.replace(" ", "-"))


@named(ZOO)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_folder_is_refused_in_one_sentence_or_lives(animal: Animal, tuning: Tuning, tmp_path: Path) -> None:
    folder = copied(animal, tmp_path / "model")
    findings = inspect(folder, tuning=tuning, cpu=True)
    said = [told(folder, finding) for finding in findings]
    if refusal := getattr(animal, tuning):
        with pytest.raises(InvalidInput, match=refusal) as refused:
            raise_refusals(folder, findings)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 400 + len(str(folder))
        return
    raise_refusals(folder, findings)
    assert [bool(re.search(animal.told, sentence)) for sentence in said] == [True] * bool(animal.told) or (
        tuning == "full" and not said
    )
    live(folder, tuning, tmp_path)


def live(folder: Path, tuning: Tuning, tmp_path: Path, *, cpu: bool = True) -> None:
    """A step of fine-tuning, then a first version and a learned one, both of which an engine would load."""
    fine_tune(folder, SHOWN, tmp_path / "tuned", Passes(steps=1, batch=1, lr=1e-3, seed=0))
    for model in (folder, tmp_path / "tuned"):
        raise_refusals(model, inspect(model, tuning=tuning, cpu=cpu))
        registry = open_registry(tmp_path / f"versions-{model.name}")
        first = genesis(registry, model, tuning=tuning, probe_of=first_probe)
        preflight.check(registry, first, base=model, reference=model, max_lora_rank=4)
        assert not (registry.path(first) / "consolidated.safetensors").exists()
        policy = Policy.load(model, tuning=tuning, version=registry.path(first), lora=Lora(4))
        before = policy.logprobs([((5, 6), (7, 8))])
        with torch.no_grad():
            for parameter in policy.parameters().values():
                parameter += 0.02
        learned = registry.reserve("policy")
        policy.write_version(registry.stage(learned))
        registry.publish(Manifest(version=learned, tuning=tuning))
        preflight.check(registry, learned, base=model, reference=model, max_lora_rank=4)
        again = Policy.load(model, tuning=tuning, version=registry.path(learned), lora=Lora(4))
        with precision.rounded(policy.parameters(), policy.written):
            after = policy.logprobs([((5, 6), (7, 8))])
        assert after != before
        assert again.logprobs([((5, 6), (7, 8))])[0] == pytest.approx(after[0], abs=1e-4)
    RewardModel.load(folder, tuning=tuning, lora=Lora(4))
    assert trunk.limits(trunk.read_config(folder)).context == 128, "whatever its configuration calls it"
    assert token_bytes(folder) > 4 * 16 * 2 * 64, "of two layers of 64 units, whatever they are called"


@named(tuple(animal for animal in ZOO if "experts" in animal.name))
def test_on_a_gpu_an_adapter_leaves_experts_as_they_are(animal: Animal, tmp_path: Path) -> None:
    folder = copied(animal, tmp_path / "model")
    findings = inspect(folder, tuning="lora", cpu=False)
    assert [finding.severity for finding in findings] == ["warn"]
    assert "attention and shared layers alone" in told(folder, findings[0])
    live(folder, "lora", tmp_path, cpu=False)


@pytest.mark.parametrize("name", ["an absent shard", "tensors of another size"])
def test_up_ends_with_the_sentence(name: str) -> None:
    """What the files say, and what transformers says of them."""
    animal = next(animal for animal in ZOO if animal.name == name)
    seen = start(animal, "lora")
    assert seen.is_as_the_zoo_says(animal.lora), seen.said


def test_what_ends_a_turn_is_what_is_taught_as_its_end(tmp_path: Path) -> None:
    animal = next(animal for animal in ZOO if animal.name.startswith("the turn ends otherwise"))
    tokenizer = ChatTokenizer(copied(animal, tmp_path / "model"))
    assert tokenizer.token(tokenizer.answer_ids("yes")[-1]) == "<|im_end|>"
    assert tokenizer.eos_ids == (3, 1), "at either of them the engine stops, and an answer has ended by itself"


def test_the_table_in_the_docs_is_the_zoo() -> None:
    assert table() in DOCS.read_text(), "python -m tests.zoo.models prints it anew"
