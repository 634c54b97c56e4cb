"""The command for supervised fine-tuning, as a process: a file and a log in, a model folder out, mistakes in words."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from rlhf_online import events as ev
from rlhf_online.config import SftSettings
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.models.policy import Policy
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.sft.__main__ import _as_lines, gather
from rlhf_online.wire import encode
from tests.support.logged import completion, feedback, ref

ROOT = Path(__file__).resolve().parents[3]
FIG = {"messages": [{"role": "user", "content": "fig"}, {"role": "assistant", "content": "is a fruit"}]}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "base", weights_seed=None)
    return tmp_path / "base"


def _sft(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlhf_online.cli", "sft", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_a_file_and_peoples_corrections_are_learned(base: Path, tmp_path: Path):
    long = {"messages": [FIG["messages"][0], {"role": "assistant", "content": "fig " * 200}]}
    (tmp_path / "data.jsonl").write_text("\n".join([*map(json.dumps, (FIG, long)), "nonsense"]))
    # The answer to "hello", which the tiny world's tokenizer knows as no word, is learned after the tokens served.
    with LocalLog(tmp_path / "state" / "log") as log:
        log.append(encode(completion("c"))).result(30)
        log.append(encode(feedback(ev.Correction(answer=ref("c"), text="please name one tool")))).result(30)
    ended = _sft(
        *("--model", base, "--data", tmp_path / "data.jsonl", "--log", tmp_path / "state", "--out", tmp_path / "out"),
        *("--epochs", 60, "--batch", 2, "--lr", 5e-3, "--held-out", 0, "--device", "cpu", "--threads", 1),
    )
    assert ended.returncode == 0, ended.stderr
    assert "2 demonstrations in" in ended.stdout and "1 corrections in" in ended.stdout
    assert "1 of its lines cannot be used:\n  line 3: not JSON" in ended.stdout
    assert "1 demonstrations were left out:\n  line 2: an answer of 201 tokens" in ended.stdout
    assert "90/90" in ended.stdout
    tokenizer, policy = ChatTokenizer(tmp_path / "out"), Policy.load(tmp_path / "out", tuning="full")
    prompts = [tokenizer.prompt_ids([ev.Message(role="user", content="fig")]), (1, 2, 3)]
    answers = policy.sample(prompts, max_tokens=8, temperature=0.2, seed=0, eos_ids=tokenizer.eos_ids)
    assert [tokenizer.decode(answer) for answer in answers] == ["is a fruit", "please name one tool"]


def test_weights_that_are_not_there_are_no_random_ones(base: Path, tmp_path: Path):
    """In silence they were, and the first loss was that of a model that knows nothing."""
    (tmp_path / "data.jsonl").write_text(json.dumps(FIG))
    write_tiny_model(base, weights_seed=0)
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    for lost in ("lacks model.layers.0.mlp.up_proj.weight: fetch", "holds its weights as pytorch_model.bin"):
        ended = _sft("--model", base, "--data", tmp_path / "data.jsonl", "--out", tmp_path / "out")
        assert ended.returncode == 2 and lost in ended.stderr and not (tmp_path / "out").exists()
        if (base / "model.safetensors").exists():
            (base / "model.safetensors").rename(base / "pytorch_model.bin")


def test_mistakes_are_said_before_anything_is_computed(base: Path, tmp_path: Path):
    data, out = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text("nonsense")
    ended = _sft("--model", base, "--data", data, "--out", out)
    assert ended.returncode == 2 and f"{data} holds no line that can be learned from" in ended.stderr
    ended = _sft("--model", base, "--out", out)
    assert ended.returncode == 2 and "nothing to learn from" in ended.stderr
    ended = _sft("--model", base, "--log", tmp_path / "nowhere", "--out", out)
    assert ended.returncode == 2 and "no event log at" in ended.stderr
    data.write_text(json.dumps(FIG))
    ended = _sft("--model", base, "--data", data, "--out", base)
    assert ended.returncode == 2 and "is not empty" in ended.stderr
    ended = _sft("--model", base, "--data", data, "--out", out, "--lr", -1)
    assert ended.returncode == 2 and "lr: Input should be greater than 0 (got -1.0)" in ended.stderr
    ended = _sft("--model", base, "--data", data, "--out", out, "--held-out", 0.1)
    assert ended.returncode == 2 and "held_out has no effect while log is '': it needs a value" in ended.stderr
    assert not out.exists()


def test_a_child_says_every_tenth_step_and_the_last(capsys: pytest.CaptureFixture[str]):
    with _as_lines() as tell:
        for step in range(1, 25):
            tell(step, 24, 2 / 3)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said == [{"step": step, "steps": 24, "loss": 0.6667} for step in (10, 20, 24)]


@pytest.mark.parametrize("log", ["{state}", "file:{state}/log"])
def test_a_log_is_a_state_folder_or_an_address_and_what_it_held_is_said(tmp_path: Path, log: str):
    state = tmp_path / "state"
    with LocalLog(state / "log") as written:
        for number in range(3):
            written.append(encode(completion(f"c{number}"))).result(30)
            correction = ev.Correction(answer=ref(f"c{number}"), text="good" if number else "")
            written.append(encode(feedback(correction))).result(30)
        written.append(b"nonsense").result(30)
    settings = {"model": tmp_path, "out": tmp_path / "out", "log": log.format(state=state), "held_out": 0}
    said: list[str] = []
    shown = gather(SftSettings.model_validate(settings), said.append)
    assert [item.answer["content"] for item in shown] == ["good", "good"]
    [line] = said
    assert line.startswith("2 corrections in") and line.endswith("0 held out, 1 unusable, 1 records unreadable")
    (tmp_path / "data.jsonl").write_text(json.dumps(FIG))
    both = gather(SftSettings.model_validate(settings | {"data": tmp_path / "data.jsonl"}), said.append)
    assert [item.answer["content"] for item in both] == ["is a fruit", "good", "good"]
    assert said[1] == f"1 demonstrations in {tmp_path / 'data.jsonl'}" and len(said) == 3
