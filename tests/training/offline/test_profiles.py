"""`rlhf-online people profiles`: from a log and a live reward model to what each person's own taste is worth."""

import random
from pathlib import Path

import pytest

from rlhf_online import events as ev
from rlhf_online.cli import main
from rlhf_online.config.offline import ProfilesSettings
from rlhf_online.errors import InvalidInput
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.models.reward import Heads, RewardModel
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.state import StateDir
from rlhf_online.training.offline.profiles import Found, run
from rlhf_online.versions import open_registry
from rlhf_online.versions.manifest import Manifest
from rlhf_online.wire import encode
from tests.support.logged import completion, ref

GOOD, BAD = (5, 6, 1), (7, 8, 1)
VOTES = 30
LIKING, DISLIKING = [f"{number:032x}" for number in range(4)], [f"{number:032x}" for number in range(4, 8)]
"""Hashes of people who like the one answer, and of those who like the other."""


def _state(folder: Path, base: Path) -> StateDir:
    """With a reward model that nobody has taught, and its trainer's settings."""
    state = StateDir(folder / "state")
    state.run.mkdir(parents=True)
    (state.run / "trainer.toml").write_text(f'model = "{base}"\ndevice = "cpu"\n[reward]\nheld_out = 0.2\n')
    registry = open_registry(state.versions)
    version = registry.reserve("reward")
    RewardModel.load(base, tuning="full", heads=Heads(objectives=("helpful",))).save(registry.stage(version))
    registry.publish(Manifest(version=version, tuning="full"))
    registry.promote(version)
    return state


def _said(person: str, rng: random.Random) -> list[ev.Envelope]:
    """Two of three votes are pairs, the others thumbs; each is on an exchange of its own."""
    said = []
    for number in range(VOTES):
        name = f"{person}-{number}"
        liked = int(person in DISLIKING)
        prompt = [rng.randrange(5, 60) for _ in range(4)]
        said.append(completion(name, prompt=prompt, answers=[GOOD, BAD], conversation=f"talk {name}", person=person))
        kind: ev.FeedbackKind = ev.Pairwise(chosen=ref(name, liked), rejected=ref(name, 1 - liked))
        if number % 3 == 0:
            index = rng.randrange(2)
            kind = ev.Thumb(answer=ref(name, index), up=index == liked)
        vote = ev.Feedback(conversation_id=f"talk {name}", person=person, kind=kind, created_ms=2_000 + number)
        said.append(ev.Envelope(event_id=f"vote {name}", event=vote))
    return said


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    write_tiny_model(tmp_path / "base", weights_seed=0)
    state, rng = _state(tmp_path, tmp_path / "base"), random.Random(0)
    with LocalLog(state.log) as log:
        for person in (*LIKING, *DISLIKING):
            log.append_all([encode(each) for each in _said(person, rng)]).result(30)
    return state


def found_in(state: StateDir) -> Found:
    """In this process."""
    registry = open_registry(state.versions)
    reward = registry.path(registry.live("reward") or "")
    given = {"model": state.root.parent / "base", "log": str(state.root), "reward": reward, "tuning": "full"}
    return run(ProfilesSettings.model_validate(given | {"device": "cpu"}))


def test_ten_votes_tell_what_somebody_likes_and_an_erasure_takes_that_along(
    state: StateDir, capfd: pytest.CaptureFixture[str]
):
    found = found_in(state)
    assert [told.person for told in found.people] == [*LIKING, *DISLIKING]
    assert all(told.later == VOTES - 10 for told in found.people)
    # The common model cannot be right of both kinds; ten votes tell which kind somebody is.
    assert sum(told.common for told in found.people) / 8 == pytest.approx(0.5, abs=0.1)
    assert all(told.profile > 0.9 for told in found.people)
    assert found.gain_low <= found.gain <= found.gain_high and found.gain > 0.3 and found.taste > 0.3
    with LocalLog(state.log) as log:
        gone = ev.Erasure(conversation_id="", person=LIKING[0], erased_ms=1 << 50)
        log.append(encode(ev.Envelope(event_id="gone", event=gone))).result(30)
    assert main(["people", "profiles", "--state", str(state.root)]) == 0
    told = capfd.readouterr().out
    assert LIKING[0] not in told and all(person in told for person in (*LIKING[1:], *DISLIKING))
    assert "7 people, whose tastes differ by" in told
    assert not list(state.root.rglob("*profile*")), "nothing is kept"


def test_who_has_given_ten_votes_has_none_to_be_foretold(tmp_path: Path):
    write_tiny_model(tmp_path / "base", weights_seed=0)
    state = _state(tmp_path, tmp_path / "base")
    with LocalLog(state.log) as log:
        log.append_all([encode(each) for each in _said(LIKING[0], random.Random(0))[:20]]).result(30)
    with pytest.raises(InvalidInput, match="nobody has given more than 10 votes by helpful"):
        found_in(state)


def test_without_a_reward_model_one_is_told_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert main(["people", "profiles", "--state", str(tmp_path)]) == 2
    assert "there is no reward model yet" in capfd.readouterr().err
