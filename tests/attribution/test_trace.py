"""What is told of an answer, of a version and of a person: exact, and a sentence where something is not known."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.attribution import trained_on
from rlhf_online.attribution.lineage import UNRECORDED
from rlhf_online.attribution.search import Found, search
from rlhf_online.attribution.trace import person_data, trace, version_data
from rlhf_online.attribution.trained_on import AnswerUsed, TrainedOn, VoteUsed
from rlhf_online.cli import main
from rlhf_online.errors import InvalidInput, UnknownVersion
from rlhf_online.eventlog.folder import segments
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import segment_name
from rlhf_online.eventlog.tail import LocalReader
from rlhf_online.feedback.outcomes import OutcomeBoard, fact, vote_key
from rlhf_online.state import StateDir
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.registry import Registry
from rlhf_online.wire import encode
from tests.support.chat_service import running
from tests.support.logged import completion, erasure, thumb

ANN, BOB, CAT = "a" * 32, "b" * 32, "c" * 32


def published(registry: Registry, kind: str, parent: str = "", reward: str = "", **gate: float) -> str:
    version = registry.reserve("policy" if kind == "policy" else "reward")
    (registry.stage(version) / "weights").write_text("1")
    registry.publish(Manifest(version=version, tuning="full", parent=parent, reward_version=reward, kl=0.25))
    registry.promote(version, gate=dict(gate))
    return version


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


@pytest.fixture
def registry(state: StateDir) -> Registry:
    """policy-000000 ◀─ 1 (reward 0: ann's vote, bob's answer) ◀─ 2 (reward 1: cat's vote, ann's again)."""
    registry = open_registry(state.versions)
    published(registry, "policy")
    anns = VoteUsed(event_id="anns", person=ANN, completions=("c1",))
    cats = VoteUsed(event_id="cats", person=CAT, completions=("c2", "c3"))
    bobs = AnswerUsed(completion_id="c1", index=1, person=BOB)
    for version, said in {
        "reward-000000": TrainedOn(votes=(anns,)),
        "policy-000001": TrainedOn(after="policy-000000", answers=(bobs,)),
        "reward-000001": TrainedOn(after="reward-000000", votes=(cats, replace(anns, new=False))),
        "policy-000002": TrainedOn(after="policy-000001", asked=(CAT,)),
    }.items():
        trained_on.write(registry.store, version, said)
    published(registry, "reward")
    published(registry, "policy", "policy-000000", "reward-000000", win_rate=0.61, samples=64.0)
    published(registry, "reward", "reward-000000")
    published(registry, "policy", "policy-000001", "reward-000001")
    return registry


@pytest.fixture
def log(state: StateDir) -> Iterator[LocalLog]:
    with LocalLog(state.log, segment_bytes=30) as log:
        yield log


def write(log: LocalLog, *envelopes: ev.Envelope) -> None:
    for envelope in envelopes:
        log.append(encode(envelope)).result(30)


def across_a_swap() -> ev.Envelope:
    made = completion("c1", answers=((5, 6, 7), (8,)))
    assert isinstance(made.event, ev.Completion)
    first, second = made.event.answers
    spans = tuple(ev.VersionSpan(policy_version=f"policy-00000{n}", first_token=at) for n, at in ((1, 0), (2, 2)))
    return replace(made, event=replace(made.event, answers=(replace(first, spans=spans), second)))


def traced(state: StateDir, registry: Registry, name: str) -> dict:
    with LocalReader(state.log) as reader:
        return dict(trace(name, search(reader, name), registry))


def test_an_answer_across_a_swap_names_who_wrote_which_tokens(
    state: StateDir, registry: Registry, log: LocalLog
) -> None:
    write(log, completion("c0"), across_a_swap(), thumb("c1", event_id="anns"), thumb("c1", event_id="new", index=1))
    OutcomeBoard(registry.store).publish({vote_key("new", "rater"): fact("held_out")})
    found = traced(state, registry, "c1")
    assert [answer["spans"] for answer in found["answers"]] == [
        [
            {"policy_version": "policy-000001", "first_token": 0, "tokens": 2},
            {"policy_version": "policy-000002", "first_token": 2, "tokens": 1},
        ],
        [{"policy_version": "policy-000001", "first_token": 0, "tokens": 1}],
    ]
    one, two = found["versions"]
    assert (one["version"], one["parent"], one["reward_version"], one["kl"], one["state"]) == (
        "policy-000001", "policy-000000", "reward-000000", 0.25, "retired",
    )  # fmt: skip
    assert one["gate"] == {"win_rate": 0.61, "samples": 64.0}
    assert one["learned_from"] == {
        "votes_new": 1, "votes_replayed": 0, "votes_in_all": 1, "answers": 1, "answers_in_all": 1, "unknown": {},
    }  # fmt: skip
    assert two["learned_from"] == {
        "votes_new": 1, "votes_replayed": 1, "votes_in_all": 2, "answers": 0, "answers_in_all": 1, "unknown": {},
    }  # fmt: skip
    assert found["place"] == {"partition": "local", "offset": 1, "segment": ""}
    assert [(vote["event_id"], vote["place"]["offset"], vote["state"]) for vote in found["votes"]] == [
        ("anns", 2, "live"),  # the board says nothing of it any more: the record of the version does
        ("new", 3, "held_out"),
    ]
    assert found["votes"][0]["reward_version"] == "reward-000000"
    assert found["learned_in"] == [
        {"version": "reward-000000", "votes": ["anns"], "answers": []},
        {"version": "reward-000001", "votes": ["anns"], "answers": []},
        {"version": "policy-000001", "votes": [], "answers": [1]},
    ]
    assert found["notes"] == []


def test_who_wrote_an_answer_may_not_be_known(state: StateDir, registry: Registry, log: LocalLog) -> None:
    made = completion("c1")
    assert isinstance(made.event, ev.Completion)
    write(
        log,
        replace(made, event=replace(made.event, answers=tuple(replace(each, spans=()) for each in made.event.answers))),
    )
    found = traced(state, registry, "c1")
    assert [(answer["tokens"], answer["spans"]) for answer in found["answers"]] == [(2, []), (2, [])]
    assert found["versions"] == []


def test_an_erased_conversation_tells_who_learned_from_it(state: StateDir, registry: Registry, log: LocalLog) -> None:
    write(log, completion("c1"), erasure("talk c1", at_ms=7_000))
    found = traced(state, registry, "c1")
    assert found["erased_ms"] == 7_000
    assert [use["version"] for use in found["learned_in"]] == ["reward-000000", "reward-000001", "policy-000001"]
    assert "its person erased the conversation" in found["notes"][0]


def test_what_the_log_let_go_of_is_told_from_the_versions(state: StateDir, registry: Registry, log: LocalLog) -> None:
    write(log, *(completion(f"c{n}") for n in (1, 5, 6)))
    for first in segments(state.log)[:1]:
        (state.log / segment_name(first)).unlink()
    found = traced(state, registry, "c1")
    assert found["place"] is None and found["answers"] == [] and len(found["learned_in"]) == 3
    assert found["notes"] == [
        "the log does not hold it: its records were removed by retention, and what is told here is what versions "
        "recorded"
    ]
    with pytest.raises(InvalidInput, match=r"nor does what is left of the log .local from record 1 on; retention"):
        traced(state, registry, "c4")


def test_a_vote_before_its_answer_is_told(state: StateDir, registry: Registry, log: LocalLog) -> None:
    write(log, thumb("c9", event_id="early"))
    found = traced(state, registry, "c9")
    assert [vote["event_id"] for vote in found["votes"]] == ["early"]
    assert found["notes"] == ["the log holds votes on it, and not itself: it has not come yet, or retention removed it"]


def test_a_version_of_another_store_a_damaged_one_and_one_without_weights(
    state: StateDir, registry: Registry, log: LocalLog
) -> None:
    made = across_a_swap()
    assert isinstance(made.event, ev.Completion)
    spans = tuple(
        ev.VersionSpan(policy_version=name, first_token=at)
        for at, name in enumerate(("policy-000099", "policy-000001", "policy-000002"))
    )
    first = replace(made.event.answers[0], spans=spans)
    write(log, replace(made, event=replace(made.event, answers=(first,))))
    (state.versions / "policy-000001" / "manifest.json").write_text("{")
    registry.store.discard_files("policy-000002")
    strange, damaged, pruned = traced(state, open_registry(state.versions), "c1")["versions"]
    assert (strange["state"], strange["reason"]) == ("unknown", "this store has no such version")
    assert "its manifest cannot be read" in damaged["reason"]
    assert not pruned["weights"] and pruned["reward_version"] == "reward-000001"
    assert pruned["learned_from"]["votes_in_all"] == 2, "its record is kept"


def test_a_version_lists_its_votes_and_those_that_it_goes_back_to(registry: Registry) -> None:
    found = version_data("policy-000002", registry)
    assert [(vote["event_id"], vote["new"], vote["version"]) for vote in found["votes"]] == [
        ("cats", True, "reward-000001"),
        ("anns", False, "reward-000001"),
    ]
    assert found["votes"][0]["completions"] == ["c2", "c3"] and found["asked"] == [CAT]
    assert {vote["event_id"]: vote["version"] for vote in found["votes_in_all"]} == {
        "anns": "reward-000000",
        "cats": "reward-000001",
    }
    assert (found["answers"], len(found["answers_in_all"])) == ([], 1)
    assert version_data("reward-000000", registry)["votes_in_all"] == [
        {"event_id": "anns", "person": ANN, "completions": ["c1"], "version": "reward-000000", "new": True}
    ]
    with pytest.raises(UnknownVersion, match="policy-000077"):
        version_data("policy-000077", registry)


def test_a_person_is_in_every_version_that_goes_back_to_their_data(registry: Registry) -> None:
    def rows(person: str) -> list[tuple[str, int, int, bool, str]]:
        found = person_data(person, registry)["versions"]
        return [(row["version"], row["votes"], row["answers"], row["asked"], row["through"]) for row in found]

    assert rows(ANN) == [
        ("reward-000000", 1, 0, False, ""),
        ("reward-000001", 1, 0, False, ""),
        ("policy-000001", 0, 0, False, "reward-000000"),
        ("policy-000002", 0, 0, False, "policy-000001"),
    ]
    assert rows(BOB) == [("policy-000001", 0, 1, False, ""), ("policy-000002", 0, 0, False, "policy-000001")]
    assert rows(CAT) == [("reward-000001", 1, 0, False, ""), ("policy-000002", 0, 0, True, "")]
    assert rows("d" * 32) == []
    published(registry, "reward")
    assert person_data(BOB, registry)["unknown"] == {"reward-000002": UNRECORDED}


def test_a_reward_version_goes_back_to_what_its_update_began_with(state: StateDir) -> None:
    """Its record says so, whatever was live: after a fall-back to an older checkpoint it is not the one before it."""
    registry = open_registry(state.versions)
    published(registry, "policy")
    for number, after, event_id in ((0, "", "first"), (1, "reward-000000", "lost"), (2, "reward-000000", "last")):
        said = TrainedOn(after=after, votes=(VoteUsed(event_id=event_id, person=ANN, completions=("c1",)),))
        trained_on.write(registry.store, f"reward-{number:06d}", said)
        published(registry, "reward", "reward-000001" if number else "")
    assert {vote["event_id"] for vote in version_data("reward-000002", registry)["votes_in_all"]} == {"first", "last"}
    policy = published(registry, "policy", "policy-000000", "reward-000002")
    trained_on.write(registry.store, policy, TrainedOn(after="policy-000000"))
    assert {vote["event_id"] for vote in version_data(policy, registry)["votes_in_all"]} == {"first", "last"}


# The command line


def test_the_command_traces_an_answer(
    state: StateDir, registry: Registry, log: LocalLog, capsys: pytest.CaptureFixture[str]
) -> None:
    write(log, across_a_swap(), thumb("c1", event_id="anns"))
    assert main(["trace", "c1", "--state", str(state.root)]) == 0
    said = capsys.readouterr().out
    assert f"log       local record 0 in {segment_name(0)}, asked 1970-01-01 00:00:00 UTC" in said
    assert "policy-000001 wrote tokens 0 to 1, policy-000002 wrote tokens 2 to 2" in said
    assert "learned from 1 new and 1 replayed votes, 2 in all with what it goes back to" in said
    assert f"anns  thumb by rater, local record 1 in {segment_name(1)}\n    accepted → joined → trained in" in said
    assert "5 6" not in said, "no text of an answer"
    assert main(["trace", "c1", "--json", "--state", str(state.root)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["place"] == {"partition": "local", "offset": 0, "segment": segment_name(0)}
    assert main(["trace", "c7", "--state", str(state.root)]) == 2
    assert "no completion 'c7': the log does not hold it" in capsys.readouterr().err


def test_the_command_lists_a_versions_votes_and_a_persons_versions(
    state: StateDir, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--state", str(state.root)]
    assert main(["trace", "--votes", "policy-000002", *folder]) == 0
    said = capsys.readouterr().out
    assert "votes that policy-000002 and reward-000001 learned from: 2" in said
    assert "cats  new    reward-000001  on c2, c3" in said
    assert main(["versions", "trace", "--person", BOB, *folder]) == 0
    assert "policy-000002  live       through policy-000001" in capsys.readouterr().out
    dora = state.person_hash()("dora")
    trained_on.write(registry.store, "reward-000002", TrainedOn(votes=(VoteUsed(event_id="v", person=dora),)))
    published(registry, "reward")
    assert main(["trace", "--person", "dora", "--json", *folder]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["person"] == dora and [row["version"] for row in found["versions"]] == ["reward-000002"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["c1", "--votes", "policy-000001"], "name one thing to trace"),
        (["--votes", "policy-000077"], "no version 'policy-000077'"),
        (["--votes", "../x"], "no version '../x'"),
        (["--person", "ann"], "there is no person.salt in"),
        (["c1"], "there is no log in"),
        (["c1", "--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_a_mistake_is_a_sentence(
    state: StateDir, registry: Registry, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["trace", *arguments, "--state", str(state.root)]) == 2
    assert words in capsys.readouterr().err
    assert not state.log.exists(), "nothing is made for it"


def test_nothing_is_made_for_a_mistyped_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "c1", "--state", str(tmp_path / "none")]) == 2
    assert "no state folder" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_a_completion_that_nobody_knows_is_an_error_whatever_the_log_holds(registry: Registry) -> None:
    with pytest.raises(InvalidInput, match="no completion 'x'"):
        trace("x", Found(), registry)


# The service


async def test_an_operator_asks_the_service_for_the_same(tmp_path: Path, state: StateDir, registry: Registry) -> None:
    """From the indices of its log instead of reading all of it; nobody else may."""
    state.person_hash()  # by which the log names people
    with LocalLog(state.log) as log:
        write(log, completion("c0"), across_a_swap(), thumb("c1", event_id="anns"), thumb("c0", event_id="other"))
        async with running(tmp_path, log=log) as service:
            token = {"Authorization": f"Bearer {state.operator_token()}"}

            async def ask(path: str, headers: dict[str, str] = token) -> tuple[int, dict]:
                async with service.session.get(service.url + path, headers=headers) as response:
                    return response.status, await response.json()

            with LocalReader(state.log) as reader:
                told = trace("c1", search(reader, "c1"), registry, segment=lambda place: segment_name(0))
            assert await ask("/v1/completions/c1/trace") == (200, told)
            assert await ask("/v1/versions/policy-000002/data") == (200, version_data("policy-000002", registry))
            assert await ask(f"/v1/people/{BOB}/versions") == (200, person_data(BOB, registry))
            for path, code in (
                ("/v1/completions/c7/trace", "completion_not_found"),
                ("/v1/versions/policy-000077/data", "version_not_found"),
            ):
                status, refused = await ask(path)
                assert (status, refused["error"]["code"]) == (404, code)
                assert (await ask(path, {}))[0] == 401
            write(log, erasure("talk c1", at_ms=7_000))
            status, erased = await ask("/v1/completions/c1/trace")
            assert (status, erased["erased_ms"], erased["votes"][0]["event_id"]) == (200, 7_000, "anns")
