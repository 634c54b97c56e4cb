"""How much memory training needs: by hand, in words, and as measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_online.config import Tuning
from rlhf_online.doctor import plan
from rlhf_online.doctor.plan import GIB, Choice, Shape
from rlhf_online.errors import InvalidInput
from rlhf_online.models import tree_attention, trunk
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.settings import TrainerSettings
from tests.support.learning_memory import settings

ROOT = Path(__file__).resolve().parents[2]
WIDTH, INNER, LAYERS, VOCABULARY = 512, 1536, 6, 8192
MATRICES = LAYERS * (4 * WIDTH * WIDTH + 3 * WIDTH * INNER)
WEIGHTS = 2 * VOCABULARY * WIDTH + MATRICES + (2 * LAYERS + 1) * WIDTH


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 million weights in bfloat16."""
    folder = tmp_path_factory.mktemp("planned") / "model"
    write_tiny_model(folder, weights_seed=None)
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 64}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | sizes | heads))
    with torch.random.fork_rng(devices=[]):
        lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    lm.save_pretrained(folder)
    return folder


def test_a_shape_is_what_the_headers_say(model: Path) -> None:
    shape = Shape.of(model)
    assert (shape.weights, shape.layers, shape.head) == (WEIGHTS, MATRICES, VOCABULARY * WIDTH)
    assert shape.adapter(4) == 4 * LAYERS * (4 * 2 * WIDTH + 3 * (WIDTH + INNER))
    assert shape.frozen("float32", head=True) == 4 * WEIGHTS
    assert shape.frozen("bfloat16", head=False) == 4 * (WEIGHTS - VOCABULARY * WIDTH) - 2 * MATRICES


def test_full_tuning_holds_masters_moments_and_a_reference(model: Path) -> None:
    """Without reward models 22 bytes a weight at most: 12 masters and moments, 4 gradients, 2 cast, ≤ 4 frozen."""
    shape, chosen = Shape.of(model), settings(model, "full", "lora")
    found = plan.plan(shape, chosen, Choice(tuning="full", reward_tuning="lora", dtype="bfloat16"))
    adapters = 2 * 12 * shape.adapter(chosen.reward.lora_rank)
    activations = 2 * 64 * plan.activation_bytes(LAYERS, WIDTH, INNER, 2)
    assert found.full_passes - adapters - activations <= 22 * WEIGHTS
    assert sum(found.held.values()) - adapters == 12 * WEIGHTS + shape.frozen("bfloat16", head=True)


@pytest.mark.parametrize(("dtype", "recompute"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
def test_a_card_is_filled_as_passes_are_cut_there(
    model: Path, dtype: str, recompute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By half of what is free once gradients are there; from `full_passes` on the settings are the limit."""
    shape, chosen = Shape.of(model), TrainerSettings(state_dir=Path(), chat_url="", reward_address="", model="")
    choice = Choice(tuning="full", reward_tuning="lora", dtype=dtype, recompute=recompute)
    found = plan.plan(shape, chosen, choice)
    rest = sum(found.held.values()) + found.device[plan.POLICY_LEARNS]
    a_token = plan.activation_bytes(LAYERS, WIDTH, INNER, plan.ITEM[dtype], recompute=recompute)
    lm, most = trunk.load_lm(model, device=torch.device("cpu"), dtype=torch.float32), chosen.policy.micro_batch_tokens
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
    shape, chosen = Shape.of(model), settings(model, "full", "full")
    most = plan.chosen(shape, chosen, gpu=False).on_cpu
    assert plan.fits(shape, chosen, most, "a CPU").severity == "ok"
    found = plan.fits(shape, chosen, most - GIB // 2, "a CPU")
    assert found.severity == "refuse" and found.what.endswith(": 0.5 GiB too few")
    assert "tuning 'full', reward.tuning 'full' and dtype 'float32'" in found.what
    assert found.todo.startswith("reward.tuning = 'lora' needs "), "the least that has to change"
    least = plan.fits(shape, chosen, GIB // 4, "a CPU")
    assert least.todo.startswith("a smaller model or more memory: tuning = 'lora', reward.tuning = 'lora'")


def test_moments_on_the_host_are_the_hosts(model: Path) -> None:
    """A GPU has 8 bytes a weight that learns less, but for a tensor at a time; a CPU gains nothing."""
    shape, chosen = Shape.of(model), settings(model, "full", "full")
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
    shape = Shape.of(model)
    chosen = settings(model, "full", "full").model_copy(update={"dtype": "bfloat16"})
    short = plan.chosen(shape, chosen, gpu=True).on_device - 1
    assert plan.fits(shape, chosen, short, "a GPU").todo.startswith("optimiser_state = 'cpu' needs ")


def test_a_host_that_is_too_small_beside_its_gpu_is_named(model: Path) -> None:
    """What an update changes is copied there, moments that are kept there stay."""
    shape, whole = Shape.of(model), settings(model, "full", "full")
    away = whole.model_copy(update={"optimiser_state": "cpu"})
    needed = plan.chosen(shape, away, gpu=True).on_host
    assert plan.fits(shape, away, needed, "a GPU's host").severity == "ok"
    found = plan.fits(shape, away, needed - 1, "a GPU's host")
    assert found.severity == "refuse"
    assert "on a GPU's host with tuning 'full', reward.tuning 'full', optimiser_state 'cpu' and dtype" in found.what
    assert found.todo.startswith("optimiser_state = 'device' needs ")
    less = plan.chosen(shape, whole, gpu=True).on_host
    assert plan.fits(shape, whole, less, "a GPU's host").severity == "ok" and less < needed


def test_what_would_not_fit_whole_is_not_refused_in_pieces(model: Path) -> None:
    """Ranks that share the weights need less each, and how many there are is no setting."""
    shape, whole = Shape.of(model), settings(model, "full", "full")
    most = plan.chosen(shape, whole, gpu=True).on_device
    pieces = whole.model_copy(update={"sharding": "full"})
    assert plan.fits(shape, whole, most - 1, "a GPU").severity == "refuse"
    assert plan.fits(shape, pieces, most, "a GPU").severity == "ok"
    found = plan.fits(shape, pieces, most - 1, "a GPU")
    assert found.severity == "warn" and "pieces are not reckoned" in found.what


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
    ("tuning", "reward_tuning", "dtype"), [("full", "full", "float32"), ("lora", "lora", "bfloat16")]
)
def test_the_plan_is_within_a_tenth_of_what_is_measured(
    model: Path, tuning: Tuning, reward_tuning: Tuning, dtype: str
) -> None:
    command = [sys.executable, "-m", "tests.support.learning_memory", str(model), tuning, reward_tuning, dtype]
    # What is freed of tensors this small would stay with the process; those of a model worth planning for are larger.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1048576"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    choice = Choice(tuning=tuning, reward_tuning=reward_tuning, dtype=dtype)
    planned = plan.plan(Shape.of(model), settings(model, tuning, reward_tuning), choice)
    assert planned.on_cpu == pytest.approx(int(done.stdout.splitlines()[-1]), rel=0.1)
