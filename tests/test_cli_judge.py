"""`rlhf-online judge`: from the log of a state folder to votes of the service that runs on it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.cli import main
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.events import Answer, Completion, Envelope, Message, Sampling
from rlhf_online.rewards.judge.probes import INJECTION
from rlhf_online.state import StateDir
from rlhf_online.wire import encode
from tests.support.scripted_judge import letters, parts, scripted_judge

Captured = pytest.CaptureFixture[str]


def by_length(body: dict[str, Any]) -> dict[str, Any]:
    a, b = parts(body)
    return letters(0.9, 0.1) if len(a) < len(b) else letters(0.1, 0.9)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A log with two answers to one prompt."""
    root = tmp_path / "state"
    texts = ("zinc, which is a metal", "zinc")
    answers = tuple(
        Answer(index=i, text=text, token_ids=(1,), logprobs=(-1.0,), spans=(), finish_reason="stop")
        for i, text in enumerate(texts)
    )
    asked = Completion(
        completion_id="c", conversation_id="talk", person="ann", messages=(Message(role="user", content="a metal?"),),
        prompt_token_ids=(1,), answers=answers, sampling=Sampling(), started_ms=1, finished_ms=2,
    )  # fmt: skip
    with LocalLog(StateDir(root).log) as log:
        log.append(encode(Envelope(event_id="e", event=asked))).result(10)
    return root


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Path]:
    """The file of a judge that prefers the shorter answer, and knows nothing else."""
    with scripted_judge(by_length) as (url, _):
        file = tmp_path / "judge.toml"
        file.write_text(f'url = "{url}"\nmodel = "m"\nprinciples = ["Be brief."]\nlabels_per_minute = 100000\n')
        yield file


def test_a_run_votes_once_and_says_what_it_did(judge: Path, state: Path, capsys: Captured) -> None:
    with scripted_judge(lambda body: {"event_id": "v", "position": {}}) as (url, taken):
        service = ["--url", url.removesuffix("/v1"), "--state", str(state)]
        assert main(["judge", "run", str(judge), *service]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "1 pairs of answers in the log, 1 without a label of this judge's",
            "1 labels, 200 tokens",
        ]
        [vote] = taken
        assert (vote["path"], vote["source"]) == ("/v1/feedback", "ai")
        assert vote["pairwise"]["chosen"] == {"completion_id": "c", "index": 1}
        assert main(["judge", "run", str(judge), *service]) == 0
        assert "0 without a label" in capsys.readouterr().out and len(taken) == 1


def test_a_vote_that_is_refused_is_given_next_time(judge: Path, state: Path, capsys: Captured) -> None:
    refusal = (409, json.dumps({"error": {"message": "not now"}}))
    with scripted_judge(lambda body: refusal) as (url, taken):
        service = ["--url", url.removesuffix("/v1"), "--state", str(state)]
        for _ in range(2):
            assert main(["judge", "run", str(judge), *service]) == 0
            said = capsys.readouterr().out
            assert "not now" in said and "without a label: refused 1" in said
        assert len(taken) == 2


def test_the_probe_has_an_exit_code(judge: Path, tmp_path: Path, capsys: Captured) -> None:
    def gullible(body: dict[str, Any]) -> dict[str, Any]:
        a, b = parts(body)
        if (INJECTION.strip() in a) != (INJECTION.strip() in b):
            return letters(0.9, 0.1) if INJECTION.strip() in a else letters(0.1, 0.9)
        return by_length(body)

    with scripted_judge(gullible) as (url, _):
        file = tmp_path / "gullible.toml"
        file.write_text(judge.read_text().replace(judge.read_text().split('"')[1], url))
        assert main(["judge", "probe", str(file)]) == 1
    assert "swayed by an answer that asks to be chosen: " in capsys.readouterr().out.splitlines()[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("url = 3", "url"),
        ('url = "http://x/v1"\nmodel = "m"\nprinciples = []', "principles: "),
        ('url = "http://x/v1"\nmodel = "m"\nprinciple = ["a"]', "principle is no setting: did you mean principles?"),
        ('url = "x"\nmodel = "m"\nprinciples = ["a"]', "url: "),
        ('url = "http://x/v1"\nmodel = "m"\nprinciples = ["a"]\nleast_confidence = 1.5', "least_confidence: "),
        (
            'url = "http://x/v1"\nmodel = "m"\nprinciples = ["a"]\nkey_file = "nowhere"',
            "key_file: nowhere cannot be read",
        ),
        ("[", "it is no TOML"),
    ],
)
def test_a_file_of_no_use_is_refused_by_name(tmp_path: Path, capsys: Captured, text: str, words: str) -> None:
    file = tmp_path / "judge.toml"
    file.write_text(text)
    assert main(["judge", "probe", str(file)]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
