"""`rlhf-online critic`: from the log of a state folder to the annotators' queue of the service that runs on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.cli import main
from rlhf_online.rewards.critic.planted import PLANTED
from tests.support.logged import two_answers
from tests.support.scripted_critic import answer_in, knowing, quoting
from tests.support.scripted_judge import Reply, Script, prose, scripted_judge

Captured = pytest.CaptureFixture[str]


def good(body: dict[str, Any]) -> dict[str, Any]:
    """Finds what was planted, and fault with the long answer of the log."""
    messages = body["messages"]
    return prose(quoting("which is a metal") if "which is a metal" in answer_in(messages) else knowing(messages))


def taken(body: dict[str, Any]) -> dict[str, Any]:
    return {"results": [{"item_ids": ["item"]}]}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    two_answers(tmp_path / "state")
    (tmp_path / "state" / "operator.token").write_text("operator-token-of-a-test-service")
    return tmp_path / "state"


@pytest.fixture
def asked() -> list[dict[str, Any]]:
    """What the critic was asked."""
    return []


@pytest.fixture
def critic(tmp_path: Path, asked: list[dict[str, Any]]) -> Iterator[Path]:
    """The file of a good critic."""

    def script(body: dict[str, Any]) -> dict[str, Any]:
        asked.append(body)
        return good(body)

    with scripted_judge(script) as (url, _):
        yield file_of(url, tmp_path)


def file_of(url: str, folder: Path, more: str = "") -> Path:
    file = folder / "critic.toml"
    file.write_text(f'url = "{url}"\nmodel = "m"\nprinciples = ["Be brief."]\nlabels_per_minute = 1000000\n{more}')
    return file


def test_a_critics_notes_go_into_the_annotators_queue_once(
    state: Path, critic: Path, asked: list[Any], capsys: Captured
) -> None:
    assert main(["critic", "probe", str(critic), "--state", str(state)]) == 0
    assert "precision: 1.00 (0.89 to 1.00), 30 of 30" in capsys.readouterr().out
    asked.clear()
    with scripted_judge(taken) as (service, items):
        arguments = ["critic", "run", str(critic), "--url", service.removesuffix("/v1"), "--state", str(state)]
        assert main(arguments) == 0
        assert "1 answers: noted 1; " in capsys.readouterr().out
        [item] = items
        name = {"completion_id": "c", "index": 0}
        assert item["path"] == "/v1/annotation/items" and item["answers"] == [name] and item["people"] == 4
        assert item["notes"] == [{"answer": name, "quote": "which is a metal", "fault": "that is wrong"}]
        assert main(arguments) == 0
        assert "nothing new" in capsys.readouterr().out and len(asked) == len(items) == 1
    assert main(["critic", "effect", "--state", str(state)]) == 0
    assert "notes shown: 0 votes" in capsys.readouterr().out


def test_without_a_probe_nobody_is_asked_and_the_queue_stays_empty(
    state: Path, critic: Path, asked: list[Any], capsys: Captured
) -> None:
    with scripted_judge(taken) as (service, items):
        assert main(["critic", "run", str(critic), "--url", service.removesuffix("/v1"), "--state", str(state)]) == 2
    said = capsys.readouterr().err
    assert "the critic m may not write notes for annotators" in said and "`rlhf-online critic probe FILE`" in said
    assert asked == items == []


def misleading(body: dict[str, Any]) -> Reply:
    """Says of every answer that its first word is wrong: annotators who believe it agree with each other."""
    return prose(quoting(answer_in(body["messages"]).split()[0]))


@pytest.mark.parametrize(
    ("script", "least"),
    [(misleading, "least_precision is 0.5"), (lambda body: prose("[]"), "least_recall is 0.3")],
    ids=["misleading", "silent"],
)
def test_notes_of_a_critic_that_failed_reach_nobody(
    state: Path, tmp_path: Path, capsys: Captured, script: Script, least: str
) -> None:
    with scripted_judge(script) as (url, asked), scripted_judge(taken) as (service, items):
        file = file_of(url, tmp_path)
        assert main(["critic", "probe", str(file), "--state", str(state)]) == 1
        assert least in capsys.readouterr().out and len(asked) == 2 * len(PLANTED)
        arguments = ["critic", "run", str(file), "--url", service.removesuffix("/v1"), "--state", str(state)]
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert least in said and "set least_recall and least_precision" in said
        assert items == [] and len(asked) == 2 * len(PLANTED)
        file_of(url, tmp_path, "least_recall = 0\nleast_precision = 0\n")
        assert main(arguments) == 0, "whoever lets it pass says so in the file"


def test_a_probe_without_a_reply_of_use_leaves_what_was_kept(state: Path, tmp_path: Path, capsys: Captured) -> None:
    replies: list[Script] = [good]
    with scripted_judge(lambda body: replies[0](body)) as (url, _), scripted_judge(taken) as (service, items):
        file = file_of(url, tmp_path)
        assert main(["critic", "probe", str(file), "--state", str(state)]) == 0
        replies[0] = lambda body: prose("All is well.")
        assert main(["critic", "probe", str(file), "--state", str(state)]) != 0
        assert "replied with nothing of use" in capsys.readouterr().err
        replies[0] = good
        arguments = ["critic", "run", str(file), "--url", service.removesuffix("/v1"), "--state", str(state)]
        assert main(arguments) == 0 and len(items) == 1


def test_what_the_queue_did_not_take_as_it_was_away_is_asked_about_again(
    state: Path, critic: Path, capsys: Captured
) -> None:
    assert main(["critic", "probe", str(critic), "--state", str(state)]) == 0
    replies: list[Reply] = [None, taken({})]
    with scripted_judge(lambda body: replies.pop(0)) as (service, items):
        arguments = ["critic", "run", str(critic), "--url", service.removesuffix("/v1"), "--state", str(state)]
        assert main(arguments) != 0
        assert "no answer from" in capsys.readouterr().err
        assert main(arguments) == 0
        assert "1 answers: noted 1; " in capsys.readouterr().out and len(items) == 2


def test_what_a_critic_must_reach_is_a_share(state: Path, critic: Path, capsys: Captured) -> None:
    critic.write_text(critic.read_text() + "least_precision = 50\n")
    assert main(["critic", "probe", str(critic), "--state", str(state)]) == 2
    assert "least_precision: " in capsys.readouterr().err
