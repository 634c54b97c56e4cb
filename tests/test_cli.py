"""The command line against a service that records what it is asked, and its words for every mistake."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rlhf_online.cli import main
from rlhf_online.config import load
from rlhf_online.durable import write_json
from rlhf_online.eventlog.folder import segments
from rlhf_online.eventlog.gap import accepted
from rlhf_online.eventlog.local import LocalLog
from rlhf_online.eventlog.segments import segment_name
from rlhf_online.rewards import weights
from rlhf_online.state import StateDir
from rlhf_online.training.policy.algorithms.grpo import GRPO
from rlhf_online.versions import open_registry, pods
from rlhf_online.versions.folder_store import FolderStore
from rlhf_online.versions.manifest import Manifest
from rlhf_online.versions.pods import PodReport
from services.standalone.settings import StandaloneSettings

ROOT = Path(__file__).resolve().parents[1]

META = {
    "completion_id": "chatcmpl-1",
    "versions": [[{"policy_version": "policy-000003", "first_token": 0}]],
}
CHUNKS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "Hello"}}]},
    {"choices": [{"index": 0, "delta": {"content": " you."}, "finish_reason": "stop"}], "rlhf": META},
]


@dataclass
class Fake:
    """Answers by path; `asked` holds (method, path, body, authorization)."""

    url: str = ""
    asked: list[tuple[str, str, Any, str | None]] = field(default_factory=list)
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def answer(self, path: str, body: Any, status: int = 200) -> None:
        self.answers[path] = (status, body if isinstance(body, bytes) else json.dumps(body).encode())


def events(*chunks: dict[str, Any], done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + (["data: [DONE]\n\n"] if done else [])
    return "".join(lines).encode()


@pytest.fixture
def service() -> Iterator[Fake]:
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def reply(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            fake.asked.append((method, self.path, body, self.headers.get("Authorization")))
            status, content = fake.answers.get(self.path, (404, b'{"error": {"message": "no such route"}}'))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.reply("GET")

        def do_POST(self) -> None:
            self.reply("POST")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    folder = StateDir(tmp_path / "state")
    folder.operator_token()
    return folder


# Chat


def test_an_answer_is_printed_with_the_weights_that_wrote_it(service, capsys):
    service.answer("/v1/chat/completions", events(*CHUNKS))
    assert main(["chat", "Hi", "--url", service.url, "--user", "ann", "--profile", "brief", "--max-tokens", "9"]) == 0
    assert capsys.readouterr().out == "Hello you.\n[policy-000003 · chatcmpl-1]\n"
    method, path, body, _ = service.asked[0]
    assert (method, path) == ("POST", "/v1/chat/completions")
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert (body["stream"], body["max_tokens"], body["temperature"]) == (True, 9, 1.0)
    assert (body["user"], body["profile"]) == ("ann", "brief")


def test_a_conversation_keeps_its_messages_and_takes_thumbs(service, capsys, monkeypatch):
    service.answer("/v1/chat/completions", events(*CHUNKS))
    service.answer("/v1/feedback", {"event_id": "e", "position": {"local": 2}})
    monkeypatch.setattr(sys, "stdin", io.StringIO("+\nHi\n+\n-\n-\n+\nAgain\n-\n/new\n-\nThird\n"))
    assert main(["chat", "--url", service.url]) == 0
    chats = [body for _, path, body, _ in service.asked if path == "/v1/chat/completions"]
    votes = [body for _, path, body, _ in service.asked if path == "/v1/feedback"]
    assert [message["content"] for message in chats[1]["messages"]] == ["Hi", "Hello you.", "Again"]
    assert [message["role"] for message in chats[1]["messages"]] == ["user", "assistant", "user"]
    assert chats[0]["conversation_id"] == chats[1]["conversation_id"] == votes[0]["conversation_id"]
    assert [vote["thumb"]["up"] for vote in votes] == [True, False, True, False]
    assert [vote.get("replaces") for vote in votes] == [None, "e", "e", None]  # a repeated thumb is no change of mind
    assert len({vote["idempotency_key"] for vote in votes[:3]}) == 3
    assert votes[0]["thumb"]["answer"] == {"completion_id": "chatcmpl-1"} and votes[0]["source"] == "cli"
    assert len(chats[2]["messages"]) == 1 and chats[2]["conversation_id"] != chats[0]["conversation_id"]
    assert capsys.readouterr().out.count("there is no answer to judge yet") == 2


def test_a_thumb_whose_reply_was_lost_is_sent_again_as_the_same_vote(service, capsys, monkeypatch):
    service.answer("/v1/chat/completions", events(*CHUNKS))
    service.answer("/v1/feedback", b"")
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n+\n+\n"))
    assert main(["chat", "--url", service.url]) == 0
    [first, second] = [body for _, path, body, _ in service.asked if path == "/v1/feedback"]
    assert first == second and "replaces" not in first


def test_an_answer_that_breaks_off_is_an_error(service, capsys):
    service.answer("/v1/chat/completions", events(CHUNKS[1], done=False))
    assert main(["chat", "Hi", "--url", service.url]) == 1
    assert "ended too early: ask again" in capsys.readouterr().err


def test_an_error_within_the_stream_is_shown(service, capsys):
    service.answer("/v1/chat/completions", events(CHUNKS[1], {"error": {"message": "the engine died"}}))
    assert main(["chat", "Hi", "--url", service.url]) == 1
    assert capsys.readouterr().err == "error: the engine died\n"


def test_no_service_at_the_address(capsys):
    assert main(["chat", "Hi", "--url", "http://127.0.0.1:9"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: no answer from http://127.0.0.1:9") and "rlhf-online up" in error


@pytest.mark.parametrize(
    ("address", "code"),
    [("http://fig:pear@127.0.0.1:9", 1), ("http://fig:pear@[", 2), ("fig://fig:pear@127.0.0.1:9", 2)],
)
def test_what_an_address_names_a_user_by_is_not_printed(address, code, capsys):
    assert main(["chat", "Hi", "--url", address]) == code
    said = capsys.readouterr()
    assert "://…@" in said.err and "pear" not in said.err + said.out


def test_something_else_at_the_address(service, capsys):
    service.answer("/v1/feedback", b"<html>")
    assert main(["feedback", "thumb", "c", "up", "--url", service.url]) == 1
    assert "does not speak this API" in capsys.readouterr().err


# Feedback


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (
            ["thumb", "c1", "down", "--index", "2"],
            {"thumb": {"answer": {"completion_id": "c1", "index": 2}, "up": False}},
        ),
        (
            ["rank", "c1", "2", "0,1"],
            {
                "ranking": {
                    "tiers": [
                        [{"completion_id": "c1", "index": 2}],
                        [{"completion_id": "c1", "index": 0}, {"completion_id": "c1", "index": 1}],
                    ]
                }
            },
        ),
        (
            ["pair", "c1:1", "c2", "--strength", "3"],
            {
                "pairwise": {
                    "chosen": {"completion_id": "c1", "index": 1},
                    "rejected": {"completion_id": "c2", "index": 0},
                    "tie": False,
                    "unsure": False,
                    "strength": 3,
                }
            },
        ),
        (
            ["correct", "c1", "Better."],
            {"correction": {"answer": {"completion_id": "c1", "index": 0}, "text": "Better."}},
        ),
        (
            ["implicit", "c1", "rephrase", "--index", "1"],
            {"implicit": {"answer": {"completion_id": "c1", "index": 1}, "signal": "rephrase"}},
        ),
        (
            ["thumb", "c1", "up", "--objective", "harmless"],
            {"thumb": {"answer": {"completion_id": "c1", "index": 0}, "up": True}, "objective": "harmless"},
        ),
    ],
)
def test_each_kind_of_feedback(service, capsys, arguments, kind):
    service.answer("/v1/feedback", {"event_id": "event-7", "position": {"local": 2}})
    assert main(["feedback", *arguments, "--key", "k", "--user", "ann", "--reason", "why", "--url", service.url]) == 0
    said = {"source": "cli", "idempotency_key": "k", "user": "ann", "reason": "why"}
    assert service.asked[0][2] == {**kind, **said}
    assert capsys.readouterr().out == "noted as event event-7\n"


def test_a_vote_is_changed_and_taken_back_by_its_id(service, capsys):
    service.answer("/v1/feedback", {"event_id": "event-8", "position": {"local": 3}})
    options = ["--user", "ann", "--url", service.url]
    assert main(["feedback", "thumb", "c1", "down", "--replaces", "event-7", *options]) == 0
    assert main(["feedback", "withdraw", "event-8", "c1", "--index", "1", *options]) == 0
    edit, withdrawal = (body for _, _, body, _ in service.asked)
    assert edit["replaces"] == "event-7" and edit["thumb"]["up"] is False
    assert withdrawal["withdrawal"] == {"answer": {"completion_id": "c1", "index": 1}}
    assert (withdrawal["replaces"], withdrawal["user"]) == ("event-8", "ann")
    assert edit["idempotency_key"] != withdrawal["idempotency_key"]
    assert capsys.readouterr().out == "noted as event event-8\n" * 2


def test_an_index_that_is_none(service, capsys):
    assert main(["feedback", "rank", "c1", "first", "--url", service.url]) == 2
    assert "no answer's index" in capsys.readouterr().err
    assert service.asked == []


def test_the_services_own_words_for_a_refusal(service, capsys):
    service.answer("/v1/feedback", {"error": {"message": "the log takes no events now"}}, status=503)
    assert main(["feedback", "thumb", "c1", "up", "--url", service.url]) == 1
    assert capsys.readouterr().err == f"error: {service.url} answered 503: the log takes no events now\n"


def test_the_key_is_an_option_or_a_variable(service, monkeypatch):
    service.answer("/v1/feedback", {"event_id": "1"})
    monkeypatch.setenv("RLHF_API_KEY", "from the variable")
    assert main(["feedback", "thumb", "c1", "up", "--url", service.url]) == 0
    assert main(["--key", "from the option", "feedback", "thumb", "c1", "up", "--url", service.url]) == 0
    assert [authorization for *_, authorization in service.asked] == [
        "Bearer from the variable",
        "Bearer from the option",
    ]


@pytest.mark.parametrize(
    ("key", "token", "command", "sent"),
    [
        ("key", "t" * 16, "list", "key"),
        ("", "t" * 16, "list", "t" * 16),
        ("", "", "list", None),
        ("key", "t" * 16, "rollback", "t" * 16),
        ("key", "", "rollback", "key"),
    ],
)
def test_operators_send_their_token_and_others_their_key(service, monkeypatch, tmp_path, key, token, command, sent):
    monkeypatch.setenv("RLHF_API_KEY", key)
    monkeypatch.setenv("RLHF_OPERATOR_TOKEN", token)
    service.answer("/v1/versions", {"versions": []})
    service.answer("/v1/versions/rollback", {"version": "policy-000001"})
    assert main(["versions", command, "--url", service.url, "--state", str(tmp_path)]) == 0
    assert [authorization for *_, authorization in service.asked] == [f"Bearer {sent}" if sent else None]


# Versions and status


def test_the_operators_levers_carry_the_credential(service, state, capsys):
    service.answer("/v1/versions/policy-000002/promote", {"version": "policy-000002", "state": "live", "previous": ""})
    service.answer("/v1/versions/rollback", {"version": "policy-000001", "state": "live", "previous": "policy-000002"})
    options = ["--url", service.url, "--state", str(state.root)]
    assert main(["versions", "promote", "policy-000002", *options]) == 0
    assert main(["versions", "rollback", "--reason", "rude", *options]) == 0
    assert {authorization for *_, authorization in service.asked} == {f"Bearer {state.operator_token()}"}
    assert service.asked[1][2] == {"reason": "rude"}
    assert "policy-000001 is live again" in capsys.readouterr().out
    first = {"version": "policy.brief-000000", "state": "failed", "previous": ""}
    service.answer("/v1/versions/rollback", first)
    assert main(["versions", "rollback", "--audience", "brief", *options]) == 0
    assert service.asked[2][2] == {"reason": "by hand", "kind": "policy.brief"}
    assert "policy.brief-000000 is left: the common adapter answers brief" in capsys.readouterr().out


def test_a_lever_without_a_credential_asks_for_it_and_makes_no_folder(service, tmp_path, capsys):
    assert main(["versions", "rollback", "--url", service.url, "--state", str(tmp_path / "nosuch")]) == 2
    assert "no operator's token" in capsys.readouterr().err
    assert service.asked == [] and not (tmp_path / "nosuch").exists()


def test_the_reference_is_refreshed_in_the_folder(state, tmp_path, capsys):
    assert main(["versions", "refresh-reference", "--state", str(tmp_path / "nosuch")]) == 2
    assert main(["versions", "refresh-reference", "--state", str(state.root)]) == 2
    assert "no policy version yet" in capsys.readouterr().err
    registry = open_registry(state.versions)
    for _ in range(2):
        version = registry.reserve("policy")
        registry.stage(version)
        registry.publish(Manifest(version=version, tuning="lora"))
        registry.promote(version)
    assert main(["versions", "refresh-reference", "--state", str(state.root)]) == 0
    assert "KL counts from policy-000001" in capsys.readouterr().out
    assert registry.references() == ["policy-000000", "policy-000001"]
    assert main(["versions", "refresh-reference", "policy-000000", "--state", str(state.root)]) == 0
    assert registry.references()[-1] == "policy-000000"
    capsys.readouterr()
    assert main(["status", "--state", str(state.root)]) == 0
    assert ["reference", "policy-000000"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_versions_are_listed_from_the_folder_and_from_a_service(service, state, capsys):
    registry = open_registry(state.versions)
    for kl in (0.0, 1.25):
        version = registry.reserve("policy")
        registry.stage(version)
        registry.publish(Manifest(version=version, tuning="lora", kl=kl))
        registry.promote(version, reason="won")
    assert main(["versions", "list", "--state", str(state.root)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:3] == ["policy-000000", "retired", "0.000"]
    assert lines[2][:4] == ["policy-000001", "live", "1.250", "won"]
    row = {"version": "policy-000009", "state": "failed", "reason": "hash", "kl": 2.0, "parent": "policy-000008"}
    service.answer("/v1/versions", {"versions": [row]})
    assert main(["versions", "list", "--url", service.url]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == [
        "policy-000009",
        "failed",
        "2.000",
        "policy-000008",
        "hash",
    ]


def test_a_damaged_version_is_a_row_that_says_so(state, capsys):
    registry = open_registry(state.versions)
    for _ in range(2):
        version = registry.reserve("policy")
        registry.stage(version)
        registry.publish(Manifest(version=version, tuning="lora"))
    (registry.path("policy-000000") / "manifest.json").write_text("{")
    assert main(["versions", "list", "--state", str(state.root)]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert rows[0].startswith("policy-000000") and "its manifest cannot be read" in rows[0]
    assert rows[1].startswith("policy-000001")


def _publish_reward(state: StateDir, objectives: list[str], **figures: float) -> None:
    registry = open_registry(state.versions)
    version = registry.reserve("reward")
    (registry.stage(version) / "reward.json").write_text(json.dumps({"objectives": objectives}))
    registry.publish(Manifest(version=version, tuning="full", figures=figures))
    registry.promote(version)


def test_a_reward_version_is_listed_with_what_it_is_worth(state, capsys):
    _publish_reward(state, ["helpful"], accuracy=0.81, accuracy_low=0.74, accuracy_high=0.868, accuracy_n=90)
    _publish_reward(state, ["helpful"], accuracy_n=0, thumb_auc=0.7, thumb_auc_low=0.5, thumb_auc_high=0.9, thumb_n=9)
    assert main(["versions", "list", "--state", str(state.root)]) == 0
    _, first, second = capsys.readouterr().out.splitlines()
    assert "0.81 (0.74–0.87)" in first and "thumbs 0.70 (0.50–0.90)" in second


def test_weights_are_read_and_changed(state, capsys):
    folder = ["--state", str(state.root)]
    assert main(["reward-weights", *folder]) == 2
    assert "no reward model yet" in capsys.readouterr().err
    _publish_reward(state, ["helpful", "harmless"])
    assert main(["reward-weights", *folder]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [["helpful", "1"], ["harmless", "1"]]
    assert main(["reward-weights", "harmless=2.5", *folder]) == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["harmless", "2.5"]
    assert weights.read(open_registry(state.versions).store, state) == {"helpful": 1.0, "harmless": 2.5}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["harmles=2"], "'harmles' is no objective: there are helpful, harmless"),
        (["harmless=-1"], "the weight of harmless must be a number from 0 to 1e+06, and is -1"),
        (["harmless=1e300"], "the weight of harmless must be a number from 0 to 1e+06, and is 1e+300"),
        (["harmless=nan"], "must be a number from 0 to 1e+06"),
        (["harmless"], "'harmless' sets no weight"),
        (["harmless=two"], "'harmless=two' sets no weight"),
        (["helpful=0", "harmless=0"], "all weights are 0"),
    ],
)
def test_weights_of_no_use_are_refused_and_change_nothing(state, capsys, given, words):
    _publish_reward(state, ["helpful", "harmless"])
    store = open_registry(state.versions).store
    weights.change(store, state, {"helpful": 3.0}, ["helpful"])
    assert main(["reward-weights", *given, "--state", str(state.root)]) == 2
    assert words in capsys.readouterr().err
    assert weights.read(store, state) == {"helpful": 3.0}


def test_the_service_is_found_by_its_state_folder(service, state, capsys):
    write_json(state.run / "standalone.ready.json", {"pid": os.getpid(), "url": service.url, "http": 1, "grpc": 2})
    state.write_status(
        "trainer", {"phase": "policy", "cycle": 4, "votes": {"trained": 60, "pending": 2}, "updated_ms": 0}
    )
    ended = {"state": "restarting", "restarts": 4, "last_end": "ended with signal SIGKILL"}
    state.write_status("services", {"trainer": ended, "reward": {"state": "running", "restarts": 0, "last_end": ""}})
    service.answer("/readyz", {"ready": False, "state": "restarting", "message": "wait", "serving": ""}, status=503)
    assert main(["status", "--state", str(state.root)]) == 0
    said = capsys.readouterr().out
    assert service.url in said and "restarting  wait" in said
    assert "policy, cycle 4" in said and "trained 60, pending 2" in said
    assert "trainer      restarting  ended with signal SIGKILL  restarted 4 times" in said
    assert "\nreward " not in said
    state.write_status("trainer", {"phase": "policy", "cycle": 4, "step": 3, "steps": 16, "updated_ms": 0})
    assert main(["status", "--state", str(state.root)]) == 0
    assert "policy, step 3 of 16, cycle 4" in capsys.readouterr().out


def test_status_when_nothing_runs(state, tmp_path, capsys):
    assert main(["status", "--state", str(state.root)]) == 0
    assert "not running" in capsys.readouterr().out
    assert main(["status", "--state", str(tmp_path / "nosuch")]) == 2
    assert "no state folder at" in capsys.readouterr().err


def test_status_lists_the_pods_where_there_are_several(state, capsys):
    store = FolderStore(state.versions)
    pods.tell(store, PodReport(pod="chat-0", serving="policy-000001", state="ready"))
    assert main(["status", "--state", str(state.root)]) == 0
    assert "chat-0" not in capsys.readouterr().out, "of one /readyz says it"
    could_not = {"policy-000001": "CUDA out of memory"}
    pods.tell(store, PodReport(pod="chat-1", serving="policy-000000", state="ready", could_not=could_not))
    pods.tell(store, PodReport(pod="chat-2", state="restarting"))
    assert main(["status", "--state", str(state.root)]) == 0
    said = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "pod chat-0 ready, serves policy-000001" in said
    assert "pod chat-1 ready, serves policy-000000 could not serve policy-000001: CUDA out of memory" in said
    assert "pod chat-2 restarting, serves no version" in said


# Up


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own: `up` replaces the process that it runs in."""
    return subprocess.run(
        [sys.executable, "-m", "rlhf_online.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_up_says_that_the_model_is_not_there(tmp_path):
    ended = command("up", "--model", str(tmp_path / "nosuch"), "--state", str(tmp_path / "state"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"error: no model folder at {tmp_path}/nosuch: give an existing folder, or a hub id such as org/name\n"
    )


def test_up_says_that_a_hub_id_cannot_be_fetched(tmp_path):
    ended = command("up", "--model", "nobody/nothing", "--state", str(tmp_path / "state"), HF_HOME=str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: nobody/nothing is no folder here and could not be fetched from the hub")
    assert "Traceback" not in ended.stderr


def test_up_hands_its_options_to_the_services_and_they_win_over_variables(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    options = ["--model", str(model), "--port", "4321", "--tuning", "full", "--kafka", "kafka://127.0.0.1:9"]
    variables = {"RLHF_UP__CHAT__HTTP_PORT": "1234", "RLHF_UP__TRAINER__SEED": "5"}
    ended = command("up", *options, "--state", str(tmp_path / "state"), **variables)
    # The folder is empty, so the services refuse to start; what they were given stands in the settings file.
    assert ended.returncode == 2 and "holds no config.json" in ended.stderr
    chosen = load(StandaloneSettings, tmp_path / "state" / "run" / "standalone.toml")
    assert (chosen.chat.http_port, chosen.tuning, chosen.log.url, chosen.trainer.seed) == (
        4321,
        "full",
        "kafka://127.0.0.1:9",
        5,
    )
    assert chosen.trainer.rollout.per_cycle == 64


def test_up_takes_a_settings_file_of_ones_own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(f'model = "{tmp_path / "nosuch"}"\nstate_dir = "{tmp_path / "state"}"\nmin_vote = 3\n')
    ended = command("up", "--config", str(path))
    assert ended.returncode == 2 and "min_vote is no setting" in ended.stderr and "Traceback" not in ended.stderr


def test_up_names_the_option_of_a_wrong_value(tmp_path):
    ended = command("up", "--model", str(tmp_path), "--state", str(tmp_path / "state"), "--port", "99999")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: --port: chat.http_port: Input should be less than or equal to 65535")


def test_up_takes_the_state_folder_beside_a_settings_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(f'model = "m"\nstate_dir = "{tmp_path / "other"}"\n')
    ended = command("up", "--config", str(path), "--state", str(tmp_path / "state"))
    assert "no model folder at m" in ended.stderr
    assert load(StandaloneSettings, tmp_path / "state" / "run" / "standalone.toml").state_dir == tmp_path / "state"
    assert not (tmp_path / "other").exists()


def test_up_takes_any_setting_as_an_option(tmp_path):
    options = ["--set", "trainer.gate.kl.max=8", "--set", 'objectives=["helpful", "harmless"]', "--set", "model=m"]
    ended = command("up", "--model", str(tmp_path), "--state", str(tmp_path / "state"), *options)
    assert "no model folder at m" in ended.stderr
    chosen = load(StandaloneSettings, tmp_path / "state" / "run" / "standalone.toml")
    assert (chosen.trainer.gate.kl.max, chosen.objectives) == (8.0, ("helpful", "harmless"))


@pytest.mark.parametrize(
    ("option", "variables"),
    [
        ("trainer.policy.algorithm.name=grpo", {}),
        ("trainer.policy.algorithm=grpo", {}),
        ("log_level=info", {"RLHF_UP__TRAINER__POLICY__ALGORITHM__NAME": "grpo"}),
    ],
)
def test_up_takes_another_algorithm_without_the_settings_of_its_own(tmp_path, option, variables):
    options = ["--set", option, "--set", "model=m"]
    ended = command("up", "--model", str(tmp_path), "--state", str(tmp_path / "state"), *options, **variables)
    assert "no model folder at m" in ended.stderr
    chosen = load(StandaloneSettings, tmp_path / "state" / "run" / "standalone.toml")
    assert chosen.trainer.policy.algorithm == GRPO()


def test_up_says_what_an_option_looks_like(tmp_path):
    ended = command("up", "--model", str(tmp_path), "--state", str(tmp_path / "state"), "--set", "gate.kl.max")
    assert (ended.returncode, ended.stderr) == (
        2, "error: --set gate.kl.max: expected NAME=VALUE, such as tuning=lora\n"
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["up", "--modle", "x"], ["up", "--port", "many"], ["nonsense"]])
def test_a_wrong_option_is_named_with_exit_code_2(arguments, capsys):
    assert main(arguments) == 2
    assert arguments[-2 if len(arguments) == 3 else -1].strip("-") in capsys.readouterr().err


# The gap


def test_a_gap_is_told_and_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path)]
    assert main(["gap", "check", *state]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    with LocalLog(tmp_path / "log", segment_bytes=500) as log:
        for _ in range(20):
            log.append(b"x" * 100).result(30)
        place = {"identity": log.identity, "position": {"local": 10}}
    manifest = tmp_path / "checkpoints" / "000003" / "manifest.json"
    write_json(manifest, {"log": place})
    assert main(["gap", "check", *state]) == 0
    assert main(["gap", "accept", *state]) == 0
    assert capsys.readouterr().out.count("nothing is missing") == 2
    for first in segments(tmp_path / "log")[:3]:
        (tmp_path / "log" / segment_name(first)).unlink()
    write_json(manifest, {"log": place | {"position": {"local": 2}}})
    assert main(["gap", "check", *state]) == 1
    assert "records 2 to 11 were removed: 10 are missing" in capsys.readouterr().err
    assert main(["gap", "accept", *state]) == 0
    assert "accepted" in capsys.readouterr().out
    assert accepted(tmp_path / "checkpoints", place["identity"], {"local": 2})
    assert not accepted(tmp_path / "checkpoints", place["identity"], {"local": 3})


# doctor


def test_doctor_says_what_stands_in_the_way_in_json_too(tmp_path):
    write_json(tmp_path / "config.json", {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"})
    command = [sys.executable, "-m", "rlhf_online.cli", "doctor", str(tmp_path)]
    ended = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    found = json.loads(ended.stdout)["findings"]
    assert [(finding["severity"], finding["about"], finding["what"]) for finding in found] == [
        ("refuse", "folder", "holds no tokenizer_config.json")
    ]
