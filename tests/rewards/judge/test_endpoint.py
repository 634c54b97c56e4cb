"""The endpoint of a judge: probabilities, letters, and everything else that it may say or not say."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.errors import InvalidInput
from rlhf_online.rewards.judge.endpoint import MOST_BYTES, MOST_DECLINED, Cache, Endpoint, read
from rlhf_online.rewards.judge.settings import JudgeSettings
from rlhf_online.rewards.judge.verdicts import Doubt, Said
from tests.support.scripted_judge import Script, letters, prose, scripted_judge

MESSAGES = [{"role": "user", "content": "A or B?"}]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "judge.sqlite")
    yield made
    made.close()


def settings(url: str, **values: Any) -> JudgeSettings:
    return JudgeSettings.model_validate({"url": url, "model": "m", "principles": ["Be kind."], **values})


def asked(script: Script, cache: Cache, **values: Any) -> tuple[Said | Doubt, list[dict[str, Any]], list[float]]:
    waits: list[float] = []
    with scripted_judge(script) as (url, requests):
        endpoint = Endpoint(settings(url, **values), cache, waits.append, lambda: 1000.0 * len(requests))
        try:
            return endpoint.ask(MESSAGES), requests, waits
        finally:
            endpoint.close()


def test_a_label_is_soft_where_the_endpoint_gives_probabilities(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    said, [request], _ = asked(lambda body: letters(0.7, 0.2), cache, key_file=str(tmp_path / "key"))
    assert isinstance(said, Said) and (said.a, said.b) == pytest.approx((0.7, 0.2))
    assert (request["path"], request["key"]) == ("/v1/chat/completions", "Bearer secret")
    assert (request["model"], request["temperature"], request["logprobs"]) == ("m", 0, True)
    assert "priority" not in request, "which not every endpoint takes"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (prose("A"), Said(1.0, 0.0)),
        (prose(" **B**.\n"), Said(0.0, 1.0)),
        (prose("Answer A is better."), Doubt("prose")),
        (prose("I cannot judge this."), Doubt("prose")),
        (prose(""), Doubt("prose")),
        (letters(0.0, 0.5), Said(0.0, 0.5)),
        (letters(0.0, 0.0, says="Both"), Said(0.0, 0.0)),
        (letters(0.0, 0.0, says="(A"), Said(math.exp(-0.1), 0.0)),
    ],
)
def test_what_a_reply_says(choice: dict[str, Any], said: Said | Doubt) -> None:
    assert read(choice["choices"][0]) == said


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"message": None}]}, [], {"choices": 3}])
def test_a_reply_that_is_none_labels_nothing(cache: Cache, body: Any) -> None:
    assert asked(lambda _: body, cache)[0] == Doubt("prose")


def test_who_is_overloaded_or_gone_is_asked_again_and_then_let_be(cache: Cache) -> None:
    replies = iter([(503, "loading"), None, letters(0.9, 0.1)])
    said, requests, waits = asked(lambda _: next(replies), cache)
    assert isinstance(said, Said) and len(requests) == 3 and waits == [0.5, 1.0]


def test_who_stays_away_labels_nothing(cache: Cache) -> None:
    said, requests, _ = asked(lambda _: (429, "slow down"), cache, tries=2)
    assert said == Doubt("away") and len(requests) == 2


def test_a_reply_that_takes_too_long_is_not_waited_for(cache: Cache) -> None:
    assert asked(lambda _: time.sleep(0.5), cache, tries=1, timeout_s=0.05)[0] == Doubt("late")


def test_what_the_endpoint_refuses_for_good_ends_the_run(cache: Cache) -> None:
    with pytest.raises(InvalidInput, match=r"refuses the question \(401\): no such key"):
        asked(lambda _: (401, "no such key"), cache)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_question_that_is_declined_is_passed_over_and_all_of_them_end_the_run(cache: Cache, status: int) -> None:
    def script(body: dict[str, Any]) -> Any:
        return (status, "too long") if "long" in body["messages"][0]["content"] else letters(0.9, 0.1)

    def ask(endpoint: Endpoint, text: str) -> Said | Doubt:
        return endpoint.ask([{"role": "user", "content": text}])

    with scripted_judge(script) as (url, requests):
        endpoint = Endpoint(settings(url, labels_per_minute=1e6), cache)
        assert ask(endpoint, "long") == Doubt("declined") and isinstance(ask(endpoint, "one"), Said)
        assert "logprobs" in requests[-1], "it knows probabilities all the same"
        assert [ask(endpoint, f"long {number}") for number in range(30)] == [Doubt("declined")] * 30
        assert isinstance(ask(endpoint, "two"), Said)
        endpoint.close()
        other = Endpoint(settings(url, labels_per_minute=1e6), cache)
        for number in range(MOST_DECLINED - 1):
            assert ask(other, f"long {number}") == Doubt("declined")
        with pytest.raises(InvalidInput, match=rf"refuses the question \({status}\): too long"):
            ask(other, "long, the last")
        other.close()


def test_a_reply_that_never_ends_is_not_waited_for_and_is_paid_for(cache: Cache) -> None:
    class Drip(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(50 if "drip" in self.path else 10**9):
                    self.wfile.write(b" " if "drip" in self.path else b" " * 100_000)
                    time.sleep(0.05 if "drip" in self.path else 0)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Drip) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        slow = Endpoint(settings(f"{url}/drip", tries=1, timeout_s=0.3), cache)
        huge = Endpoint(settings(f"{url}/huge", tries=1), cache)
        try:
            assert slow.ask(MESSAGES) == Doubt("late"), "although each of its bytes comes in time"
            assert huge.ask(MESSAGES) == Doubt("prose") and huge.tokens > MOST_BYTES // 4
        finally:
            for each in (slow, huge):
                each.close()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("total", [0, -500, None])
def test_who_does_not_say_what_it_used_is_reckoned_by_the_text(cache: Cache, total: Any) -> None:
    with scripted_judge(lambda _: letters(0.9, 0.1, total=total)) as (url, _):
        endpoint = Endpoint(settings(url), cache)
        endpoint.ask(MESSAGES)
        endpoint.close()
    assert 50 < endpoint.tokens < 200


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
def test_a_key_that_is_none_is_not_told(cache: Cache, tmp_path: Path, key: str) -> None:
    (tmp_path / "key").write_text(key)
    with pytest.raises(InvalidInput, match=r"key_file: .* that is no key") as refused:
        Endpoint(settings("http://127.0.0.1:9", key_file=str(tmp_path / "key")), cache)
    assert key[:3] not in str(refused.value).replace(str(tmp_path), "")


def test_an_endpoint_that_knows_no_probabilities_is_asked_for_the_letter_alone(cache: Cache) -> None:
    def script(body: dict[str, Any]) -> Any:
        return (400, "logprobs is not supported") if "logprobs" in body else prose("B")

    said, requests, _ = asked(script, cache)
    assert said == Said(0.0, 1.0)
    assert [sorted(set(each) - {"key", "path"}) for each in requests][1] == ["messages", "model"]


def test_what_was_answered_once_is_not_asked_again_and_the_budget_ends_the_asking(cache: Cache) -> None:
    with scripted_judge(lambda _: letters(0.9, 0.1, total=60)) as (url, requests):
        endpoint = Endpoint(settings(url, max_tokens=100, labels_per_minute=1e6), cache)
        first = endpoint.ask(MESSAGES)
        assert endpoint.ask(MESSAGES) == first and len(requests) == 1 and endpoint.tokens == 60
        others = [endpoint.ask([{"role": "user", "content": text}]) for text in ("C or D?", "E or F?")]
        assert others == [first, Doubt("budget")] and len(requests) == 2
        again = Endpoint(settings(url, max_tokens=100), cache)
        assert again.ask(MESSAGES) == first and len(requests) == 2, "after a restart, too"
        other = Endpoint(settings(url, model="another"), cache)
        other.ask(MESSAGES)
        assert len(requests) == 3, "another model says something else"
        for each in (endpoint, again, other):
            each.close()


def test_questions_come_no_faster_than_the_rate_says(cache: Cache) -> None:
    waits: list[float] = []
    with scripted_judge(lambda _: letters(0.9, 0.1)) as (url, _):
        endpoint = Endpoint(settings(url, labels_per_minute=30), cache, waits.append, lambda: 0.0)
        for text in ("one", "two", "three", "one"):
            endpoint.ask([{"role": "user", "content": text}])
        endpoint.close()
    assert waits == [1.0, 2.0], "two questions a label; what is known waits for nothing"


def test_doubts_are_asked_anew(cache: Cache) -> None:
    replies = iter([prose("Well."), letters(0.9, 0.1)])
    with scripted_judge(lambda _: next(replies)) as (url, _):
        endpoint = Endpoint(settings(url), cache)
        assert endpoint.ask(MESSAGES) == Doubt("prose") and isinstance(endpoint.ask(MESSAGES), Said)
        endpoint.close()


def with_usage(prompt: int, answer: int) -> dict[str, Any]:
    return letters(0.9, 0.1) | {"usage": {"prompt_tokens": prompt, "completion_tokens": answer}}


def test_a_days_money_is_counted_over_all_runs_and_ends_them(cache: Cache) -> None:
    """A question costs 2,000 · 1/1M + 100 · 20/1M = .004."""
    day = ["2026-11-28"]
    prices = {"prompt_price": 1.0, "answer_price": 20.0, "max_cost": 0.01}
    with scripted_judge(lambda body: with_usage(2000, 100)) as (url, requests):
        for run in range(2):
            endpoint = Endpoint(settings(url, **prices), cache, lambda s: None, today=lambda: day[0])
            for number in range(2):
                said = endpoint.ask([{"role": "user", "content": f"{run} {number}"}])
                assert (said == Doubt("budget")) == (run == 1 and number == 1)
            assert endpoint.spent == pytest.approx((0.008, 0.012)[run])
            endpoint.close()
        assert len(requests) == 3
        endpoint = Endpoint(settings(url, **prices), cache, lambda s: None, today=lambda: "2026-11-29")
        assert isinstance(endpoint.ask(MESSAGES), Said) and endpoint.spent == pytest.approx(0.004)
        endpoint.close()


@pytest.mark.parametrize(
    ("usage", "spent"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, 10 + 5 * 100),
        ({"total_tokens": 7}, 7 * 100),
        ({"prompt_tokens": 10, "total_tokens": 12}, 10 + 2 * 100),
    ],
)
def test_what_an_endpoint_says_of_its_tokens_is_priced(cache: Cache, usage: dict[str, int], spent: float) -> None:
    with scripted_judge(lambda body: letters(0.9, 0.1) | {"usage": usage}) as (url, _):
        endpoint = Endpoint(settings(url, prompt_price=1e6, answer_price=1e8), cache, lambda s: None)
        endpoint.ask(MESSAGES)
        assert endpoint.spent == pytest.approx(spent)
        endpoint.close()


@pytest.mark.parametrize("usage", [None, {}, {"total_tokens": -3}, {"prompt_tokens": "many"}])
def test_what_nobody_counts_is_reckoned_by_its_length(cache: Cache, usage: Any) -> None:
    with scripted_judge(lambda body: letters(0.9, 0.1) | {"usage": usage}) as (url, _):
        endpoint = Endpoint(settings(url, prompt_price=1.0, max_cost=1.0), cache, lambda s: None)
        endpoint.ask(MESSAGES)
        assert endpoint.tokens > 20 and 0 < endpoint.spent < 1e-3
        endpoint.close()


def test_a_bound_on_money_needs_prices() -> None:
    with pytest.raises(ValueError, match="max_cost needs prompt_price"):
        settings("http://x/v1", max_cost=1.0)


def test_the_engine_itself_is_asked_on_its_socket(cache: Cache, tmp_path: Path) -> None:
    with scripted_judge(lambda body: letters(0.9, 0.1), tmp_path / "engine.sock") as (url, requests):
        endpoint = Endpoint(settings(url), cache, lambda s: None)
        assert isinstance(endpoint.ask(MESSAGES), Said)
        endpoint.close()
        assert url.startswith("unix:/") and requests[0]["path"] == "/v1/chat/completions"
        assert requests[0]["priority"] > 0, "behind people, whose requests have 0"


def test_a_text_is_written_whole_or_not_at_all(cache: Cache) -> None:
    replies = iter([
        prose("Zinc is a metal."),
        {"choices": [{"message": {"content": "Zinc is"}, "finish_reason": "length"}]},
        prose("  "),
        {"choices": [{"message": {"content": None}}]},
        (400, "max_tokens is too large"),
        prose("Zinc."),
    ])  # fmt: skip
    with scripted_judge(lambda body: next(replies)) as (url, requests):
        endpoint = Endpoint(settings(url), cache, lambda s: None)
        said = [endpoint.write(MESSAGES) for _ in range(5)]
        endpoint.close()
    assert said == ["Zinc is a metal.", Doubt("cut"), Doubt("prose"), Doubt("prose"), "Zinc."]
    assert requests[0]["max_tokens"] == 2048 and "max_tokens" not in requests[-1], "without the bound that it refuses"
