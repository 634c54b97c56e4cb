"""How much memory training needs: by hand, in words, and as measured."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_online.config import Sharding, Tuning
from rlhf_online.doctor import plan
from rlhf_online.doctor.plan import GIB, Choice, Ranks, Shape
from rlhf_online.doctor.plan.reckoning import (
    ITEM,
    POLICY_LEARNS,
    POLICY_READ,
    READ,
    REWARD_LEARNS,
    STEP_READ,
    WRITTEN,
)
from rlhf_online.errors import InvalidInput
from rlhf_online.models import tree_attention, trunk
from rlhf_online.models.limits import activation_bytes
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.settings import TrainerSettings
from tests.support.learning_memory import settings, state

ROOT = Path(__file__).resolve().parents[2]
WIDTH, INNER, LAYERS, VOCABULARY = 512, 1536, 6, 8192
MATRICES = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)
WEIGHTS = 2 * VOCABULARY * WIDTH + MATRICES + (2 * LAYERS + 1) * WIDTH


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a trainer whose model has 28 million weights in bfloat16."""
    root = tmp_path_factory.mktemp("planned")
    folder = state(root)
    folder.parent.mkdir()
    write_tiny_model(folder, weights_seed=None)
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | sizes | heads))
    with torch.random.fork_rng(devices=[]):
        lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    lm.save_pretrained(folder)
    (folder / "manifest.json").write_text("{}")  # what makes it a version
    return root


def needed(shape: Shape, chosen: TrainerSettings, place: plan.Place, ranks: Ranks = plan.ALONE) -> int:
    return plan.needed(shape, chosen, plan.chosen(chosen, gpu=place != "a CPU"), place, ranks)


def test_a_shape_is_what_the_headers_say(model: Path) -> None:
    shape = Shape.of(state(model))
    assert (shape.weights, shape.layers, shape.head) == (WEIGHTS, MATRICES, VOCABULARY * WIDTH)
    assert shape.block == MATRICES // LAYERS + 2 * WIDTH, "a layer with its norms"
    assert shape.outside == 2 * VOCABULARY * WIDTH + WIDTH, "both embeddings and the last norm"
    assert shape.adapter(4) == 4 * LAYERS * (4 * 2 * WIDTH + 3 * (WIDTH + INNER))
    assert shape.frozen("float32", head=True) == 4 * WEIGHTS
    assert shape.frozen("bfloat16", head=False) == 4 * (WEIGHTS - VOCABULARY * WIDTH) - 2 * MATRICES


def test_full_tuning_holds_masters_moments_and_a_reference(model: Path) -> None:
    """Without reward models 22 bytes a weight at most: 12 masters and moments, 4 gradients, 2 cast, ≤ 4 frozen."""
    shape, chosen = Shape.of(state(model)), settings(model, "full", "lora")
    found = plan.plan(shape, chosen, Choice(tuning="full", reward_tuning="lora", dtype="bfloat16"))
    adapters = 2 * 12 * shape.adapter(chosen.reward.lora_rank)
    activations = 2 * 64 * activation_bytes(LAYERS, WIDTH, INNER, 2)
    assert found.full_passes - adapters - activations <= 22 * WEIGHTS
    assert sum(found.held.values()) - adapters == 12 * WEIGHTS + shape.frozen("bfloat16", head=True)


@pytest.mark.parametrize(("dtype", "recompute"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
def test_a_card_is_filled_as_passes_are_cut_there(
    model: Path, dtype: str, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By half of what is free once gradients are there; from `full_passes` on the settings are the limit."""
    shape, chosen = Shape.of(state(model)), TrainerSettings(state_dir=Path(), chat_url="", reward_address="", model="")
    choice = Choice(tuning="full", reward_tuning="lora", dtype=dtype, recompute=recompute)
    found = plan.plan(shape, chosen, choice)
    rest = sum(found.held.values()) + found.device[POLICY_LEARNS]
    a_token = activation_bytes(LAYERS, WIDTH, INNER, ITEM[dtype], recompute=recompute)
    lm, most = (
        trunk.load_lm(state(model), device=torch.device("cpu"), dtype=torch.float32),
        chosen.policy.micro_batch_tokens,
    )
    if recompute:
        tree_attention.recomputed(lm, torch.float32)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)

    def tokens(card: int) -> int:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (card - rest, card))
        room = trunk.free_room(torch.device("cuda"))
        return trunk.token_budget(lm, most, room, getattr(torch, dtype))

    assert tokens(found.full_passes) == most > tokens(found.full_passes - 2 * a_token - 1)
    card = (found.on_device + found.full_passes) // 2
    assert found.taken(card) == pytest.approx(rest + tokens(card) * a_token, rel=0.01)
    assert tokens(found.on_device) >= 2 * chosen.rollout.max_tokens, "an answer with its prompt"


def test_what_does_not_fit_is_told_with_what_would(model: Path) -> None:
    shape, chosen = Shape.of(state(model)), settings(model, "full", "full")
    most = needed(shape, chosen, "a CPU")
    assert plan.fits(shape, chosen, most, "a CPU").severity == "ok"
    found = plan.fits(shape, chosen, most - GIB // 2, "a CPU")
    assert found.severity == "refuse" and found.what.endswith(": 0.5 GiB too few")
    assert "tuning 'full', reward.tuning 'full' and dtype 'float32'" in found.what
    assert found.todo.startswith("reward.tuning = 'lora' needs "), "the least that has to change"
    least = plan.fits(shape, chosen, GIB // 4, "a CPU")
    assert least.todo.startswith("a smaller model or more memory: tuning = 'lora', reward.tuning = 'lora'")


def test_moments_on_the_host_are_the_hosts(model: Path) -> None:
    """A GPU has 8 bytes a weight that learns less, but for a tensor at a time; a CPU gains nothing."""
    shape, chosen = Shape.of(state(model)), settings(model, "full", "full")
    there, away = (
        plan.plan(
            shape,
            chosen,
            Choice(tuning="full", reward_tuning="full", dtype="bfloat16", optimiser_state=place),
        )
        for place in ("device", "cpu")
    )
    trunk_weights, largest = WEIGHTS - VOCABULARY * WIDTH, VOCABULARY * WIDTH
    moments, staged = 8 * (WEIGHTS + 2 * trunk_weights), 3 * 8 * largest
    rounded = 3 * 8 * LAYERS * 3 * ((1 << 20) - WIDTH * INNER)  # all else is a power of two as it is
    assert there.on_device - away.on_device == moments - staged
    assert away.on_host - there.on_host == moments + rounded and away.on_cpu - there.on_cpu == staged


def test_the_moments_place_is_changed_where_that_alone_makes_a_gpu_large_enough(model: Path) -> None:
    shape = Shape.of(state(model))
    chosen = settings(model, "full", "full").model_copy(update={"dtype": "bfloat16"})
    short = needed(shape, chosen, "a GPU") - 1
    assert plan.fits(shape, chosen, short, "a GPU").todo.startswith("optimiser_state = 'cpu' needs ")


def test_a_host_that_is_too_small_beside_its_gpu_is_named(model: Path) -> None:
    """What an update changes is copied there, moments that are kept there stay."""
    shape, whole = Shape.of(state(model)), settings(model, "full", "full")
    away = whole.model_copy(update={"optimiser_state": "cpu"})
    most = needed(shape, away, "a GPU's host")
    assert plan.fits(shape, away, most, "a GPU's host").severity == "ok"
    found = plan.fits(shape, away, most - 1, "a GPU's host")
    assert found.severity == "refuse"
    assert "on a GPU's host with tuning 'full', reward.tuning 'full', optimiser_state 'cpu' and dtype" in found.what
    assert found.todo.startswith("optimiser_state = 'device' needs ")
    less = needed(shape, whole, "a GPU's host")
    assert plan.fits(shape, whole, less, "a GPU's host").severity == "ok" and less < most


def test_pieces_are_an_nth_and_what_is_put_together_of_them_is_whole(model: Path) -> None:
    """In bytes a weight: 12 / N of each model with its moments, 4 / N of the reference; both whole where answers are
    measured, with a copy of what the gate rounds, and the policy alone beside its gradient; loading a policy takes it
    and its reference whole, and neither is there before."""
    shape, whole = Shape.of(state(model)), settings(model, "full", "full", "full")
    choice, trunk_weights = plan.chosen(whole, gpu=False), WEIGHTS - VOCABULARY * WIDTH
    for number in (2, 4):
        found = plan.plan(shape, whole, choice, Ranks(number=number))
        held = 12 * (WEIGHTS + 2 * trunk_weights) + 4 * WEIGHTS
        assert sum(found.held.values()) == pytest.approx(held / number, rel=1e-6)
        assert found.device[POLICY_READ] == pytest.approx(4 * WEIGHTS / number + 8 * WEIGHTS, rel=1e-6)
        assert found.device[STEP_READ] == pytest.approx(4 * WEIGHTS / number + 4 * WEIGHTS, rel=1e-6)
        assert found.device[READ] == pytest.approx(max(0, 8 * WEIGHTS - 16 * WEIGHTS / number), rel=1e-6)
        files = 2 * WEIGHTS
        other = plan.plan(shape, whole, choice, Ranks(number=number), leads=False)
        assert found.device[WRITTEN] - other.device[WRITTEN] == files, "rank 0 writes them"
        assert max(found.host.values()) == 12 * 2 * trunk_weights + 4 * WEIGHTS, "and keeps a checkpoint, whole"
        assert max(other.host.values()) == 12 * WEIGHTS, "which all go back to"


def test_an_adapter_and_its_base_are_whole_in_every_rank(model: Path) -> None:
    """Whether weights are cut or not; only the base of a reward model's adapter can be no piece of the reference."""
    shape, eight = Shape.of(state(model)), Ranks(number=8)
    lora, full = (settings(model, tuning, "lora", "full") for tuning in ("lora", "full"))
    choice = plan.chosen(lora, gpu=True)
    assert plan.plan(shape, lora, choice, eight) == plan.plan(shape, lora, choice)
    choice = plan.chosen(full, gpu=True)
    bases = ["the policy's base or reference", "the reward model's base, if it is another"]
    alone, cut = (plan.plan(shape, full, choice, ranks).held for ranks in (Ranks(), eight))
    assert [alone[name] for name in bases] == [shape.frozen("bfloat16", head=True), 0]
    assert [cut[name] for name in bases] == [
        shape.frozen("bfloat16", head=True) // 8,
        shape.frozen("bfloat16", head=False),
    ]


def test_an_adapter_of_the_topmost_layers_is_smaller_as_are_its_passes(model: Path) -> None:
    """Of layers below it the states of an update's answers are kept instead."""
    shape, whole = Shape.of(state(model)), settings(model, "lora", "lora")
    policy = whole.policy.model_copy(update={"lora_layers": LAYERS // 3})
    topmost = whole.model_copy(update={"policy": policy})
    choice = plan.chosen(whole, gpu=False)
    all_of_it, part = (plan.plan(shape, chosen, choice) for chosen in (whole, topmost))
    saved = shape.adapter(policy.lora_rank) * 2 // 3
    assert sum(all_of_it.held.values()) - sum(part.held.values()) == 12 * saved
    states = 512 * 2 * 8 * 4 * WIDTH
    assert part.device[POLICY_LEARNS] == all_of_it.device[POLICY_LEARNS] - 4 * saved + states
    assert part.activations[POLICY_LEARNS] == all_of_it.activations[POLICY_LEARNS] // 3
    assert part.activations[REWARD_LEARNS] == all_of_it.activations[REWARD_LEARNS]


def test_the_number_of_ranks_that_would_make_a_card_large_enough_is_named(model: Path) -> None:
    """Of those that share the weights; ranks of which each holds all need as much as one."""
    shape, whole = Shape.of(state(model)), settings(model, "full", "full")
    pieces = whole.model_copy(update={"sharding": "full"})
    three = needed(shape, pieces, "a GPU", Ranks(number=3))
    assert three < needed(shape, pieces, "a GPU", Ranks(number=2)) < needed(shape, whole, "a GPU", Ranks(number=3))
    found = plan.fits(shape, whole, three, "a GPU")
    assert found.severity == "refuse"
    assert f"sharding = 'full' and 3 ranks would need {three / GIB:.1f} GiB on each GPU" in found.todo
    found = plan.fits(shape, pieces, three, "a GPU", Ranks(number=2, here=2))
    assert found.severity == "refuse" and "on the GPU of each of 2 ranks with" in found.what
    assert "; or 3 ranks would need" in found.todo
    assert plan.fits(shape, pieces, three, "a GPU", Ranks(number=3, here=3)).severity == "ok"
    found = plan.fits(shape, pieces, three, "a GPU")
    assert found.severity == "warn", "nobody said how many there are"
    assert found.todo == f"3 ranks would need {three / GIB:.1f} GiB on each GPU; say with --ranks how many there are"


def test_ranks_of_one_machine_share_its_memory(model: Path) -> None:
    """Rank 0 needs more than the others: in pieces it alone keeps checkpoints, whole."""
    shape, pieces = Shape.of(state(model)), settings(model, "full", "full", "full")
    three = Ranks(number=6, here=3)
    choice = plan.chosen(pieces, gpu=False)
    first, other = (plan.plan(shape, pieces, choice, three, leads=leads).on_cpu for leads in (True, False))
    assert needed(shape, pieces, "a CPU", three) == first + 2 * other and first > other
    most = needed(shape, pieces, "a CPU", Ranks(number=4, here=2))
    found = plan.fits(shape, pieces, most, "a CPU", three)
    assert "on a CPU for its 3 ranks of 6 with" in found.what
    assert found.todo.endswith(f"2 ranks on a machine would need {most / GIB:.1f} GiB")


def test_a_table_of_several_ranks_has_columns_for_rank_0_and_for_the_others(model: Path) -> None:
    shape, pieces = Shape.of(state(model)), settings(model, "full", "full", "full")
    lines, alone = (plan.table(shape, pieces, ranks) for ranks in (Ranks(number=3, here=3), Ranks()))
    assert lines[1].startswith("each of 3 ranks (3 a machine) keeps a piece of what learns in full")
    assert "other hosts" in lines[2] and "other hosts" not in "".join(alone)
    (row,) = [
        row
        for row in plan.rows(shape, pieces, Ranks(number=3, here=3))
        if plan.chosen(pieces, gpu=False) == Choice(**{name: row[name] for name in Choice.__slots__})
    ]
    assert lines[3].split()[6:9] == [f"{size / GIB:.1f}" for size in (row["cpu"], *_others(row))]


def _others(row: dict[str, Any]) -> tuple[int, int]:
    return row["other_ranks"]["host"], row["other_ranks"]["cpu"]


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, weights_seed=None)
    with pytest.raises(InvalidInput, match=r"holds no \*\.safetensors"):
        Shape.of(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 5}')
    with pytest.raises(InvalidInput, match="says neither hidden_size nor n_embd nor d_model: no plan is made"):
        Shape.of(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidInput, match="cannot be planned for: KeyError\\('vocab_size'\\)"):
        Shape.of(tmp_path)


@pytest.mark.parametrize(
    ("tuning", "reward_tuning", "dtype", "number"),
    [
        ("full", "full", "float32", 1),
        ("lora", "lora", "bfloat16", 1),
        pytest.param("full", "full", "float32", 2, marks=pytest.mark.slow),
        ("full", "lora", "float32", 3),
    ],
)
def test_the_plan_is_within_a_tenth_of_what_is_measured(
    model: Path, tuning: Tuning, reward_tuning: Tuning, dtype: str, number: int
) -> None:
    """In each rank; several share the weights."""
    sharding: Sharding = "full" if number > 1 else "none"
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(number), "-m"] if number > 1 else []
    command = [sys.executable, "-m", *torchrun, "tests.support.learning_memory"]
    command += [str(model), tuning, reward_tuning, dtype, sharding]
    # What is freed of tensors this small would stay with the process; those of a model worth planning for are larger.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    measured = [int(size) for size in done.stdout.splitlines()[-1].split()]
    choice = Choice(tuning=tuning, reward_tuning=reward_tuning, dtype=dtype, sharding=sharding)
    planned = [
        plan.plan(
            Shape.of(state(model)), settings(model, tuning, reward_tuning), choice, Ranks(number=number), leads=not rank
        ).on_cpu
        for rank in range(number)
    ]
    assert planned == pytest.approx(measured, rel=0.1)
