"""The report's numbers from hand-made records, and the files that are drawn from them."""

import json

import pytest

from rlhf_online.simulation import charts, report
from rlhf_online.simulation.client import Ack, RequestCounts
from rlhf_online.simulation.report import Run, VersionFacts, VoteCounts, feedback_to_live, percentile
from rlhf_online.simulation.traffic import Measurement, Records, RewardStats, Sample


def facts(version, position, *, state="retired", kl=0.5):
    return VersionFacts(
        version=version, state=state, reason="", kl=kl, gate={"win_rate": 0.6}, position={"local": position}
    )


def measurement(mean):
    samples = (Sample("is fig a fruit ?", "yes <b>", mean, "policy-000000"),)
    return Measurement(mean=mean, stderr=0.02, n=1110, samples=samples, versions=("policy-000000",))


@pytest.fixture
def run():
    rewards = RewardStats()
    for value in [1.0, 0.0] * 15:
        rewards.add(value)
    records = Records(
        traffic=RequestCounts(requests=40, failed_requests=0),
        acks={f"e{n}": Ack(event_id=f"e{n}", position={"local": 10 * n}, at=float(n)) for n in range(1, 7)},
        by_version={"policy-000000": rewards, "policy-000001": rewards},
        first_answer={"policy-000000": 0.5, "policy-000001": 10.0, "policy-000002": 20.0},
        answers=60,
    )
    return Run(
        seed=7,
        votes="people",
        wall_s=480.04,
        first=measurement(0.48),
        last=measurement(0.91),
        records=records,
        versions=[facts("policy-000000", 0), facts("policy-000001", 30), facts("policy-000002", 60, state="live")],
        swap_pauses_s=[0.1, 0.2, 0.3, 0.4, 0.5],
        vote_counts=VoteCounts(
            accepted=7,
            trained=4,
            held_out=1,
            pending=1,
            orphaned=0,
            dead_lettered=0,
            withdrawn=1,
            erased=0,
            trained_twice=0,
            trained_ids=frozenset({"e1", "e2", "e4", "e6"}),
        ),
        history=[{"reward_accuracy": 0.7}, {"reward_accuracy": None}],
    )


def test_percentiles_are_nearest_rank():
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile([3.0], 99)) == (50.0, 99.0, 3.0)
    assert percentile([2.0, 1.0, 3.0], 50) == 2.0
    assert percentile([], 50) is None


def test_latency_ends_at_the_first_answer_of_a_version_that_covers_the_vote():
    acks = [Ack(event_id="a", position={"local": 30}, at=4.0), Ack(event_id="b", position={"local": 31}, at=5.0)]
    positions = {"policy-000001": {"local": 30}, "policy-000002": {"local": 60}, "policy-000003": {"local": 90}}
    first_answer = {"policy-000001": 10.0, "policy-000002": 20.0}
    assert feedback_to_live(acks, positions, first_answer) == [6.0, 15.0]


def test_votes_that_no_served_version_covers_have_no_latency():
    ack = Ack(event_id="a", position={"local": 31}, at=4.0)
    assert feedback_to_live([ack], {"policy-000001": {"local": 30}}, {"policy-000001": 9.0}) == []
    assert feedback_to_live([ack], {"policy-000001": {"local": 40}}, {}) == []


def test_numbers(run):
    values = report.numbers(run)
    assert values["true_reward"] == {"first": 0.48, "last": 0.91, "stderr": 0.02, "first_stderr": 0.02, "n": 1110}
    assert [(item["id"], item["true_reward"], item["n"]) for item in values["versions"]] == [
        ("policy-000000", 0.5, 30),
        ("policy-000001", 0.5, 30),
        ("policy-000002", None, 0),
    ]
    assert values["versions"][0]["stderr"] == pytest.approx((0.25 / 29) ** 0.5, abs=1e-4)
    assert (values["seed"], values["wall_s"], values["swaps"]) == (7, 480.0, 5)
    assert values["swap_pause_s"] == {"p50": 0.3, "p99": 0.5}
    # e1 and e2 learned by policy-000001 (10 − 1, 10 − 2), e4 and e6 by policy-000002 (20 − 4, 20 − 6)
    assert values["feedback_to_live_s"] == {"p50": 9.0, "p99": 16.0, "n": 4}
    events = values["events"]
    assert events["accepted"] == sum(count for name, count in events.items() if name != "accepted") == 7
    assert run.vote_counts.balanced


def test_expectations(run):
    values = report.numbers(run)
    assert all(passed for _, passed in report.expectations(values))
    values["events"]["pending"] = 0
    values["failed_requests"] = 3
    values["true_reward"]["last"] = 0.7
    failed = [text for text, passed in report.expectations(values) if not passed]
    assert len(failed) == 3
    assert [passed for text, passed in report.expectations(values, chaos=True) if "failed" in text] == [True]


@pytest.mark.parametrize(
    ("votes", "last", "passes"),
    [("random", 0.52, True), ("random", 0.60, False), ("inverted", 0.30, True), ("inverted", 0.49, False)],
)
def test_expectations_of_the_controls(run, votes, last, passes):
    values = report.numbers(run)
    values["votes"], values["true_reward"]["last"] = votes, last
    assert report.expectations(values)[0][1] is passes


def test_files(run, tmp_path):
    values = json.loads(json.dumps(report.numbers(run)))
    charts.draw(values, run.history, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    charts.write_html(values, tmp_path / "report.png", run.first.samples, run.last.samples, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "yes &lt;b&gt;" in page
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("https://", "http")
    assert "+0.480 ± 0.020" in page


def test_the_summary_names_what_was_expected(run):
    text = report.summary(report.numbers(run))
    assert "✓ true reward +0.430" in text
    assert "✗" not in text
