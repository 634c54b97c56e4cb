"""`train --offline` as a process: a file or a log in, a model and a report out, mistakes in words."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlhf_online import events as ev
from rlhf_online.config.offline import OfflineSettings
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import Message
from rlhf_online.models.policy import Policy
from rlhf_online.models.reward import RewardModel
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.training.offline.__main__ import run
from rlhf_online.wire import encode
from tests.support.logged import completion, feedback, ref

ROOT = Path(__file__).resolve().parents[3]
GOOD, BAD = "please name one tool", "fig is a metal"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_tiny_model(tmp_path / "base", weights_seed=0)
    return tmp_path / "base"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """120 pairs, each to its own prompt, of which the same answer is the better one."""
    rng, words = random.Random(0), ["fig", "zinc", "tool", "metal", "fruit", "one", "two", "three", "four", "name"]
    prompts = {" ".join(rng.choices(words, k=6)) for _ in range(200)}
    rows = [{"prompt": prompt, "chosen": GOOD, "rejected": BAD} for prompt in sorted(prompts)[:120]]
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "fig", "chosen": "a", "rejected": "a"}])
    )
    return path


def learn(base: Path, out: Path, **options: Any) -> dict[str, Any]:
    """What the report says; all weights of a model so small learn, at the rate that suits it."""
    given = {"model": base, "out": out, "device": "cpu", "threads": 1, "tuning": "full", "lr": 3e-3} | options
    run(OfflineSettings.model_validate(given), time.monotonic())
    return json.loads((out / "report.json").read_text())


def pairs_of(data: Path) -> dict[str, str]:
    return {"data": str(data), "format": "trl-preference"}


def test_a_reward_model_is_learned_and_measured_on_other_conversations(base: Path, data: Path, tmp_path: Path):
    report = learn(base, tmp_path / "out", **pairs_of(data), held_out=0.3, epochs=3)
    assert report["learned"] + report["held_out_accuracy_n"] == 120 and 20 < report["held_out_accuracy_n"] < 55
    assert report["held_out_accuracy"] > 0.95 and report["left_out"] == {"equal": 1}
    assert report["held_out_shorter_wins"] == 0.5 and report["seconds"] > 0
    assert report["dtype"] == "float32", "what a CPU computes a model of this width in"
    model, tokenizer = RewardModel.load(base, folder=tmp_path / "out", tuning="full"), ChatTokenizer(base)
    prompt = tokenizer.prompt_ids([Message(role="user", content="name two fruit")])
    good, bad = model.scores([(prompt, tokenizer.answer_ids(text)) for text in (GOOD, BAD)]).mean((1, 2))
    assert good > bad + 1


@pytest.mark.parametrize("algorithm", ["dpo", "ipo", "kto", "best-of-n", "ilql"])
def test_a_policy_is_learned_from_pairs_and_serves(base: Path, data: Path, tmp_path: Path, algorithm: str):
    report = learn(base, tmp_path / "out", **pairs_of(data), algorithm=algorithm)
    assert report["held_out_gain"] > 1 and report["learned"] + report["held_out"] / (1 + (algorithm == "kto")) == 120
    assert report["dtype"] == "float32"
    if algorithm in ("dpo", "ipo", "ilql"):
        assert report["held_out_accuracy"] == 1
    policy, tokenizer = Policy.load(tmp_path / "out", tuning="full"), ChatTokenizer(tmp_path / "out")
    before = Policy.load(base, tuning="full")
    pair = (tokenizer.prompt_ids([Message(role="user", content="name two fruit")]), tokenizer.answer_ids(GOOD))
    assert sum(policy.logprobs([pair])[0]) > sum(before.logprobs([pair])[0]) + 1


def test_an_adapter_is_merged_into_a_model_that_serves(base: Path, data: Path, tmp_path: Path):
    report = learn(base, tmp_path / "out", **pairs_of(data), algorithm="dpo", tuning="lora", lr=1e-2)
    assert report["held_out_accuracy"] == 1
    Policy.load(tmp_path / "out", tuning="full")


def test_a_log_is_learned_from_as_the_trainer_would_and_left_as_it_is(base: Path, tmp_path: Path):
    with LocalLog(tmp_path / "state" / "log") as log:
        for number in range(30):
            name = f"c{number}"
            vote = ev.Pairwise(chosen=ref(name, 0), rejected=ref(name, 1))
            log.append(encode(completion(name, answers=[(5, 6, 1), (7, 8, 1)], conversation=f"talk {number}")))
            log.append(encode(feedback(vote, event_id=f"v{number}")))
        log.append(encode(feedback(ev.Thumb(answer=ref("c0", 5), up=True), event_id="wrong")))
        erasure = ev.Erasure(conversation_id="talk 3", person="asker", erased_ms=1 << 50)
        log.append(encode(ev.Envelope(event_id="gone", event=erasure))).result(30)
    before = {path.name: path.read_bytes() for path in (tmp_path / "state" / "log").iterdir()}
    report = learn(base, tmp_path / "out", log=str(tmp_path / "state"), held_out=0.2)
    assert report["of"] + report["held_out_accuracy_n"] == 29, "one conversation was erased"
    assert report["left_out"] == {"missing": 1, "erased": 1}
    assert {path.name: path.read_bytes() for path in (tmp_path / "state" / "log").iterdir()} == before


def rival_votes(folder: Path) -> str:
    """A log in which one answer is the more helpful one, and the other the terser one, to each prompt."""
    with LocalLog(folder / "state" / "log") as log:
        for number in range(40):
            name, better = f"c{number}", number % 2
            vote = ev.Pairwise(chosen=ref(name, better), rejected=ref(name, 1 - better))
            log.append(encode(completion(name, answers=[(5, 6, 1), (7, 8, 1)], conversation=f"talk {number}")))
            said = feedback(vote, event_id=f"v{number}", objective=("helpful", "terse")[better])
            log.append(encode(said)).result(30)
    return str(folder / "state")


@pytest.mark.parametrize("algorithm", ["dpo", "kto", "best-of-n", "ilql"])
def test_votes_teach_a_policy_as_much_as_their_objective_weighs(base: Path, tmp_path: Path, algorithm: str):
    given = {"log": rival_votes(tmp_path), "algorithm": algorithm, "objectives": ("helpful", "terse"), "held_out": 0.0}

    def prefers_the_helpful(out: str, **weights: float) -> float:
        learn(base, tmp_path / out, **given, weights=weights, epochs=3)
        policy = Policy.load(tmp_path / out, tuning="full")
        first, second = policy.logprobs([((5, 6, 7), (5, 6, 1)), ((5, 6, 7), (7, 8, 1))])
        return sum(first) - sum(second)

    alone, not_at_all = prefers_the_helpful("alone", helpful=5.0, terse=0.0), prefers_the_helpful("none", helpful=0.0)
    assert alone > not_at_all + 2, "votes of weight 0 teach nothing"
    more, less = prefers_the_helpful("more", helpful=3.0), prefers_the_helpful("less", helpful=0.25)
    assert more > less + 1


def test_where_no_vote_has_a_weight_nothing_is_learned(base: Path, tmp_path: Path):
    given = {"log": rival_votes(tmp_path), "objectives": ("helpful", "terse", "kind"), "algorithm": "dpo"}
    with pytest.raises(InvalidInput, match="no vote says which answers are better: dpo has nothing to learn from"):
        learn(base, tmp_path / "out", **given, weights={"helpful": 0.0, "terse": 0.0})
    assert not (tmp_path / "out").exists()


def test_where_there_is_no_time_for_all_votes_some_are_learned(base: Path, data: Path, tmp_path: Path):
    report = learn(base, tmp_path / "out", **pairs_of(data), minutes=0.0001)
    assert report["learned"] == 1 and report["of"] > 80


def test_thumbs_that_are_all_up_teach_no_reward_model_and_none_is_written(base: Path, tmp_path: Path):
    rows = [{"prompt": f"fig {n}", "completion": "yes", "label": True} for n in range(3)]
    data = tmp_path / "thumbs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidInput, match=r"which answers are better \(3 single_class\)"):
        learn(base, tmp_path / "out", data=str(data), format="trl-unpaired", held_out=0.0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "name what to learn from: --data FILE with its --format, or --log STATE"),
        ({"data": "{data}"}, "no format is called ''"),
        ({"data": "{data}", "format": "shp"}, r"there is no vote to learn from in .*pairs.jsonl \(121 shape\)"),
        ({"data": "absent", "format": "shp"}, "there is no file absent"),
        ({"log": "absent"}, "no event log at absent/log"),
        ({"data": "{data}", "format": "trl-preference", "out": "{base}"}, "is not empty"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    base: Path, data: Path, tmp_path: Path, options: dict[str, str], told: str
):
    given = {name: value.format(data=data, base=base) for name, value in options.items()}
    with pytest.raises(InvalidInput, match=told):
        learn(base, **{"out": tmp_path / "out", **given})
    assert not (tmp_path / "out").exists()


def test_the_command_starts_it_and_refuses_what_has_no_effect(base: Path, data: Path, tmp_path: Path):
    command = [sys.executable, "-m", "rlhf_online.cli", "train", "--model", str(base), "--out", str(tmp_path / "out")]

    def train(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=180)

    for arguments, told in (((), "give --offline"), (("--offline", "--beta", "1"), "beta has no effect while")):
        ended = train(*arguments)
        assert ended.returncode == 2 and told in ended.stderr and "Traceback" not in ended.stderr
    given = ("--data", str(data), "--format", "trl-preference", "--device", "cpu", "--minutes", "0.001")
    ended = train("--offline", *given)
    assert ended.returncode == 0, ended.stderr
    assert "121 rows in" in ended.stdout and "held_out_accuracy" in ended.stdout
