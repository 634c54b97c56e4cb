"""`rlhf-online judge`: from the log of a state folder to votes of the service that runs on it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.cli import main
from rlhf_online.rewards.judge.probes import INJECTION
from rlhf_online.training.sft.demonstrations import read_file
from tests.support.logged import two_answers
from tests.support.scripted_judge import letters, parts, prose, scripted_judge

Captured = pytest.CaptureFixture[str]


def by_length(body: dict[str, Any]) -> dict[str, Any]:
    a, b = parts(body)
    return letters(0.9, 0.1) if len(a) < len(b) else letters(0.1, 0.9)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return two_answers(tmp_path / "state")


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


def test_a_judge_that_labels_nothing_is_named_without_the_password_in_its_address(
    tmp_path: Path, capsys: Captured
) -> None:
    with scripted_judge(lambda body: prose("Both have their merits.")) as (url, _):
        file = tmp_path / "judge.toml"
        address = url.replace("://", "://ann:secret@")
        file.write_text(f'url = "{address}"\nmodel = "m"\nprinciples = ["Be brief."]\nlabels_per_minute = 100000\n')
        assert main(["judge", "probe", str(file)]) == 2
    said = capsys.readouterr()
    assert f"the judge at {url.replace('://', '://…@')} labelled nothing" in said.err
    assert "secret" not in said.out + said.err


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


def test_revisions_are_demonstrations_that_fine_tuning_reads(state: Path, tmp_path: Path, capsys: Captured) -> None:
    """A model that finds the answer too long and writes a shorter one, and prefers shorter ones."""

    def script(body: dict[str, Any]) -> dict[str, Any]:
        said = body["messages"][1]["content"]
        if "ANSWER B" in said:
            return by_length(body)
        return prose("zinc") if "CRITIQUE" in said else prose("It says more than was asked for.")

    with scripted_judge(script) as (url, asked):
        file, out = tmp_path / "judge.toml", tmp_path / "revised.jsonl"
        file.write_text(f'url = "{url}"\nmodel = "m"\nprinciples = ["Be brief."]\nlabels_per_minute = 100000\n')
        arguments = ["judge", "revise", str(file), str(out), "--state", str(state), "--held-out", "0"]
        assert main(arguments) == 0
        assert "1 answers, 1 revised" in capsys.readouterr().out and len(asked) == 4
        [found] = read_file(out).found
        assert (found.messages[0]["content"], found.answer["content"]) == ("a metal?", "zinc")
        assert out.stat().st_mode & 0o077 == 0, "what people said is for nobody else"
        assert main(arguments) == 2 and "name a new file" in capsys.readouterr().err
