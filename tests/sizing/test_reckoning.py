"""The calculator: worked by hand at one size, sane at all, and every factor is somebody's."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_online.cli import main
from rlhf_online.config import ChatSettings, KafkaSettings
from rlhf_online.engine.child import GPU_SEQUENCES
from rlhf_online.sizing.demand import DEMANDS, Demand
from rlhf_online.sizing.document import SIZES, document
from rlhf_online.sizing.factors import FACTORS, GPUS, SETTINGS
from rlhf_online.sizing.reckoning import limits, needs
from rlhf_online.training.settings import TrainerSettings

ROOT = Path(__file__).resolve().parents[2]


def found(demand: Demand) -> dict[str, float]:
    return {need.name: need.value for need in needs(demand)}


def test_worked_by_hand_for_ten_thousand_people() -> None:
    values = found(Demand(people=10_000))
    assert values["answers"] == 37_000 and values["votes"] == 740
    assert values["answers at the peak"] == pytest.approx(37_000 / 86_400 * 3)
    record = 227 + 210 * 6.8 + 215 * 10.8
    assert values["an answer's record"] == pytest.approx(record)
    a_day = 37_000 * record + 740 * 164
    assert values["Kafka's disks"] == pytest.approx(a_day * 30 * 3 / 1e9)
    # 256 answers at once read 16 GB of weights and 317.5 tokens of cache each, a step.
    step_s = (16e9 + 256 * 317.5 * 131_072) / (4.8e12 * 0.55)
    assert values["one engine writes"] == pytest.approx(256 / step_s)
    assert values["a version"] == pytest.approx(8e9 * 0.0026 * 4 / 1e9)
    assert values["store's bandwidth"] == pytest.approx(2 * 8e9 * 0.0026 * 4 / 60 / 2**20)
    learned = 12 * 512 * 425 * (4 * 6 + 3 * 2) + 740 * 425 * 2 * 2 * 6
    assert values["training"] == pytest.approx(8e9 * learned / 1e15)
    assert values["trainer GPUs"] == math.ceil(8e9 * learned / (989e12 * 0.34 * 0.5 * 86_400)) == 1


@given(
    people=st.integers(1, 10**9),
    votes=st.floats(0, 1),
    weights=st.floats(0.01, 1000),
    gpu=st.sampled_from(sorted(GPUS)),
    tuning=st.sampled_from(["lora", "full"]),
)
def test_whatever_is_asked_the_answer_is_a_number_and_more_people_never_need_less(
    people: int, votes: float, weights: float, gpu: str, tuning: Any
) -> None:
    demand = Demand(people=people, votes=votes, weights_billion=weights, gpu=gpu, tuning=tuning)
    values, more = found(demand), found(replace(demand, people=10 * people))
    assert all(math.isfinite(value) and value >= 0 for value in values.values())
    for name in ("answers", "chat pods", "engine GPUs", "trainer GPUs", "trainer's disk", "store's bandwidth"):
        assert values[name] <= more[name], name
    assert values["engine GPUs"] >= values["chat pods"] >= 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--people", "0"], "--people: more than 0 was expected, got 0"),
        (["--votes", "-1"], "--votes: 0 or more was expected, got -1.0"),
        (["--peak", "0.5"], "--peak: the busiest hour has at least as much as the mean, 1 or more, got 0.5"),
        (["--gpu", "b200"], "--gpu: expected one of a100, h100, h200, l40s, got 'b200'"),
        (["--weights-billion", "nan"], "--weights-billion: more than 0 was expected, got nan"),
        (["--messages", "inf"], "--messages: more than 0 was expected, got inf"),
    ],
)
def test_what_makes_no_sense_is_named_by_its_option(
    wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["size", *wrong]) == 2
    assert said in capsys.readouterr().err


def test_a_vote_for_nobody_and_an_engine_that_was_measured() -> None:
    assert found(Demand(votes=0))["votes"] == 0
    values = found(Demand(people=1_000_000, engine_tokens_s=1000))
    assert values["one engine writes"] == 1000 and values["chat pods"] > found(Demand(people=1_000_000))["chat pods"]


def test_what_this_release_cannot_do_is_said() -> None:
    assert [line for people in SIZES for line in limits(Demand(people=people))] == []
    (memory,) = limits(Demand(weights_billion=70.0))
    assert "each GPU of the trainer holds the whole models, 1,008 GB, and 127 GB of one are for them" in memory
    assert any("votes a second" in line for line in limits(Demand(people=10_000_000, votes=5)))


def test_all_weights_are_learned_in_pieces_on_as_many_gpus_as_hold_them() -> None:
    large = Demand(tuning="full", weights_billion=70.0, gpu="h100")
    assert limits(large) == []
    told = {need.name: need for need in needs(large)}
    # The policy, its reference, gradients and moments; two reward models without a reference; a fifth more.
    assert told["trainer GPUs"].value == math.ceil(13 * 4 * 70 * 1.2 / (80 * 0.9))
    assert "trainer.sharding = full" in told["trainer GPUs"].how
    assert told["trainer nodes"].value == math.ceil(told["trainer GPUs"].value / 8)


def test_the_document_is_what_the_calculator_says() -> None:
    assert (ROOT / "docs" / "sizing.md").read_text() == document(), "run `python scripts/sizing.py`"
    assert SIZES[0] == 100 and SIZES[-1] == 10_000_000


def test_every_factor_that_a_bench_measured_is_in_the_results_and_the_bench_is_there() -> None:
    results = (ROOT / "docs" / "results.md").read_text()
    for name, factor in FACTORS.items():
        for bench in re.findall(r"bench (\w+)", factor.source):
            assert (ROOT / "tests" / "benches" / f"{bench}.py").is_file(), name
            assert f"BENCH={bench}" in results, name
        if factor.source.startswith("bench "):
            _, _, as_told = factor.source.partition(": ")
            told = as_told or f"{factor.value:,.10g}"
            for figure in re.findall(r"[\d,.]*\d", told):
                assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d])", results), f"{name}: {figure}"
        assert factor.source and factor.unit


def test_every_setting_is_this_release_s_default() -> None:
    trainer = TrainerSettings(state_dir=Path("s"), chat_url="u", reward_address="a", model="m")
    chat = ChatSettings(state_dir=Path("s"))
    values = {name: factor.value for name, factor in SETTINGS.items()}
    assert values["per_cycle"] == trainer.rollout.per_cycle
    assert values["policy_passes"] == trainer.policy.epochs
    assert values["vote_passes"] == trainer.reward.epochs
    assert values["replay"] == trainer.reward.replay
    assert values["held_back"] == trainer.gate.held_back.share
    assert values["checkpoints"] == trainer.keep_checkpoints + 1
    assert values["versions"] == trainer.keep_versions + 1
    assert values["open_days"] * 86_400 == trainer.join_window_s
    assert values["conversations"] == chat.keep_conversations_gib * 2**30
    assert chat.engine.max_num_seqs == 0 and values["batch"] == GPU_SEQUENCES
    assert FACTORS["gpu_memory"].value == chat.engine.gpu_memory_utilization
    assert FACTORS["swap_s"].value == chat.swap.max_lag_s
    assert Demand().retention_days == KafkaSettings().retention_days
    assert set(DEMANDS) == set(Demand.__dataclass_fields__)


def test_json_tells_what_was_asked_the_needs_and_where_each_factor_is_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "--people", "5000", "--gpu", "l40s", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["asked"]["people"], told["asked"]["gpu"]) == (5000, "l40s")
    needed = {need["name"] for need in told["needs"]}
    assert needed >= {"partitions", "engine GPUs", "trainer nodes", "store's bandwidth"}
    assert all(factor["source"] for factor in told["factors"].values())


def test_it_is_quick_and_loads_nothing_that_computes() -> None:
    code = "import sys; from rlhf_online.cli import main; main(['size']); print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout.endswith("False\n")
