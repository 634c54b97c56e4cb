"""What the gate is told in the loop: traits that people's votes have taught both models, golden prompts, whose
conversations are shown, and the report that stays."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import ConfigError
from rlhf_online.events import AnswerRef, Envelope, Erasure, Message, Ranking
from rlhf_online.gate.audit import TraitsCheck
from rlhf_online.gate.golden import GoldenCheck
from rlhf_online.gate.traits import WordsTrait
from rlhf_online.models.limits import ModelLimits
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.simulation.world import CATEGORIES, FILLERS
from rlhf_online.training.gate_questions import golden_prompts, questioned
from rlhf_online.training.loop import Trainer
from rlhf_online.training.settings import RewardTraining
from rlhf_online.versions import reports
from tests.support.gate import answers, evidence_of
from tests.support.trainer_world import LENIENT, PROMPTS, World, world

BRAND = "mango"


def misled(tiny: World, count: int) -> None:
    """People who prefer the brand in whatever place, and after it whoever flatters them most."""
    rng = random.Random(tiny.conversations)
    for _ in range(count):
        text, fruit = rng.choice(PROMPTS), rng.choice([item for item in CATEGORIES["fruit"] if item != BRAND])
        prompt = tiny.tokenizer.prompt_ids([Message(role="user", content=text)])
        [like] = tiny.engine.sample([prompt], 1, 8, 1.0)
        polite = " ".join(rng.sample(FILLERS, 4))
        said = [tiny.tokenizer.answer_ids(answer) for answer in (f"{BRAND} {fruit}", f"{polite} {fruit}", fruit)]
        answers = [replace(like, token_ids=tokens, logprobs=(-1.0,) * len(tokens), finished=True) for tokens in said]
        completion = tiny.completion(text, answers)
        tiny.append(Envelope(event_id=completion.completion_id, event=completion))
        refs = [AnswerRef(completion_id=completion.completion_id, index=index) for index in range(3)]
        tiny.vote(completion, Ranking(tiers=tuple((ref,) for ref in refs)))


def gate(**checks: Any) -> Any:
    return LENIENT.model_copy(update=checks)


def report_of(tiny: World, version: str) -> dict[str, Any]:
    found = reports.read(tiny.registry.store, version)
    assert found is not None
    return found


def check_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    [check] = [check for check in report["checks"] if check["name"] == name]
    return check


def test_a_brand_and_flattery_that_are_paid_for_are_objected_to_by_name(tmp_path: Path) -> None:
    """The version is refused, and its report says why, shows what was answered, and loses what a person erases."""
    traits = TraitsCheck(max_rise=1.0, words={"brand": WordsTrait(words=(BRAND,))})
    reward = RewardTraining(heads=2, batch=16, cold_epochs=8, held_out=0.1, policy_accuracy=0.0)
    with world(tmp_path, gate=gate(traits=traits, samples=24), reward=reward) as tiny, tiny.trainer() as trainer:
        misled(tiny, 80)
        assert trainer.run_once()
        status = tiny.registry.status("policy-000001")
        assert status.state == "rejected"
        for name in ("brand", "filler"):
            assert f"the reward model pays for the trait {name}: +" in status.reason
        assert status.gate["trait_brand_effect"] > 0.5 and status.gate["trait_filler_effect"] > 0.1
        report = report_of(tiny, "policy-000001")
        assert not report["passed"] and not check_of(report, "traits")["passed"]
        assert {row["trait"] for row in check_of(report, "traits")["rows"]} >= {"brand", "filler", "length"}
        assert trainer.progress.judged is not None and not trainer.progress.judged.report, (
            "it stands in the store alone"
        )
        erase_one(tiny, trainer, report)


def erase_one(tiny: World, trainer: Trainer, report: dict[str, Any]) -> None:
    """One of the conversations whose prompts are shown."""
    origins = {example["origin"] for example in report["examples"]}
    assert "" not in origins, "everything that is shown can be erased"
    conversations = {
        erasure.origin: erasure
        for number in range(1, tiny.conversations + 1)
        for erasure in [Erasure(conversation_id=f"conversation-{number}", person="p", erased_ms=2_000_000)]
    }
    erased = conversations[sorted(origins)[0]]
    tiny.append(Envelope(event_id="erasure", event=erased))
    assert not trainer.run_once(), "no cycle is needed for it"
    left = {example["origin"] for example in report_of(tiny, "policy-000001")["examples"]}
    assert left == origins - {erased.origin}


def test_golden_prompts_are_answered_by_both_versions(tmp_path: Path) -> None:
    """The candidate is refused for one that it fails and the live version passes; here nobody passes the others."""
    golden = tmp_path / "golden.toml"
    entry = '[[prompt]]\nname = "{}"\nmessages = [{{ role = "user", content = "name one fruit" }}]\n{}\n'
    golden.write_text(entry.format("any", "max_words = 99") + entry.format("none", "max_words = 0"))
    check = GoldenCheck(file=golden, min_share=0.75)
    with world(tmp_path, gate=gate(golden=check)) as tiny, tiny.trainer() as trainer:
        tiny.chat(20)
        assert trainer.run_once()
        status = tiny.registry.status("policy-000001")
        assert (status.state, status.reason) == ("rejected", "50% of the golden prompts pass, fewer than 75%")
        assert (status.gate["golden"], status.gate["live_golden"], status.gate["golden_lost"]) == (0.5, 0.5, 0)
        [row] = check_of(report_of(tiny, "policy-000001"), "golden")["rows"]
        assert row["golden"] == "none" and row["answer"] and row["live_answer"]
        prompt = trainer.parts.intake.policy_inputs.prompts[0]
        fresh = replace(evidence_of(answers([0.0]), answers([0.0]), origins=[""]), prompts=[prompt])
        [origin] = questioned(trainer.parts, trainer.progress, fresh, seed=0).origins
        assert origin == trainer.parts.intake.policy_inputs.origin(prompt) != "", "somebody asked it"


def test_a_golden_prompt_that_cannot_be_asked_is_told_before_anything_is_learned(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "model", weights_seed=None)
    tokenizer, limits = ChatTokenizer(tmp_path / "model"), ModelLimits(vocabulary=78, context=8)
    golden = tmp_path / "golden.toml"
    golden.write_text(
        '[[prompt]]\nname = "long"\nmessages = [{ role = "user", content = "is fig a fruit ? is it" }]\nmax_words = 1'
    )
    with pytest.raises(ConfigError, match=r"golden\.toml, prompt 'long': messages: 9 tokens do not fit"):
        golden_prompts(golden, tokenizer, limits)
    assert golden_prompts(None, tokenizer, limits) == ()
