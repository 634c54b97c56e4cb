"""How strong versions are by people's blind pairs, from a real log, over HTTP and on the command line."""

import asyncio
from pathlib import Path

import pytest

from rlhf_online.canary.strengths import Pair, strengths
from rlhf_online.cli import main
from rlhf_online.events import Pairwise, Thumb
from rlhf_online.versions import open_registry
from services.chat.console import strengths as strengths_module
from services.chat.console.strengths import Strengths
from tests.services.chat.console.test_opinions import NEW, NEWEST, OLD, Log
from tests.services.chat.console.test_opinions import log as log
from tests.support.chat_service import running


def say(log: Log, better: str, worse: str, person: str, *, tie: bool = False) -> None:
    about = f"{better} {worse} {person}"
    first = log.answer(f"first of {about}", better, comparison=about)
    second = log.answer(f"second of {about}", worse, comparison=about)
    log.vote(Pairwise(chosen=first, rejected=second, tie=tie), person)


def test_the_strongest_stands_first_each_with_its_interval_elo_and_pairs(log: Log, tmp_path: Path) -> None:
    found = Strengths(log.opinions, open_registry(tmp_path / "versions"))
    assert found.find() == {"base": "", "pairs": 0, "people": 0, "versions": []}
    for n in range(12):
        say(log, *((NEW, OLD) if n < 8 else (OLD, NEW)), f"{n:032d}")
        say(log, NEWEST, NEW, f"{n:032d}", tie=n > 3)
    log.vote(Thumb(answer=log.answer("alone", NEW), up=False))
    log.opinions.catch_up(10)
    told = found.find()
    assert (told["base"], told["pairs"], told["people"]) == (OLD, 24, 12)
    assert [(row["version"], row["pairs"]) for row in told["versions"]] == [(NEWEST, 12), (NEW, 24), (OLD, 12)]
    said = [
        *(Pair(person=f"{n:032d}", first=NEW, second=OLD, first_better=float(n < 8)) for n in range(12)),
        *(Pair(person=f"{n:032d}", first=NEWEST, second=NEW, first_better=0.5 if n > 3 else 1.0) for n in range(12)),
    ]
    expected = strengths(said, OLD)[NEWEST]
    newest = told["versions"][0]
    assert (newest["strength"], newest["low"]) == (pytest.approx(expected.strength), pytest.approx(expected.low))
    assert newest["elo"] == pytest.approx(expected.elo)


def test_the_live_version_is_the_base_and_only_the_newest_pairs_count(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = open_registry(tmp_path / "versions")
    monkeypatch.setattr(registry, "live", lambda kind: NEW)
    monkeypatch.setattr(strengths_module, "MOST_PAIRS", 2)
    say(log, NEWEST, OLD, "a" * 32)
    for person in ("b" * 32, "c" * 32):
        say(log, NEW, OLD, person)
    log.opinions.catch_up(10)
    told = Strengths(log.opinions, registry).find()
    assert (told["base"], told["pairs"]) == (NEW, 2)
    assert [row["version"] for row in told["versions"]] == [NEW, OLD]


def test_one_persons_word_has_no_interval(log: Log, tmp_path: Path) -> None:
    say(log, NEW, OLD, "a" * 32)
    log.opinions.catch_up(10)
    row = Strengths(log.opinions, open_registry(tmp_path / "versions")).find()["versions"][0]
    assert (row["version"], row["low"], row["high"]) == (NEW, None, None)


async def test_it_is_asked_over_http_and_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(tmp_path) as service:
        status, told = await service.get("/v1/versions/strengths")
        assert (status, told) == (200, {"base": "", "pairs": 0, "people": 0, "versions": []})
        words = ["versions", "strengths", "--url", service.url, "--state", str(service.state.root)]
        assert await asyncio.to_thread(main, words) == 0
    assert "nobody has judged a blind pair of two versions yet" in capsys.readouterr().out
