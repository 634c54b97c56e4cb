"""The whole product on a tiny model with random weights, and people who chat with it and rank what it answers.

They like short answers: what they like does not matter, only that the circle turns.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from rlhf_online.config import LogSettings
from rlhf_online.simulation import world
from rlhf_online.simulation.processes import descendants
from rlhf_online.simulation.tiny_model import write_tiny_model
from rlhf_online.versions import open_registry
from services.standalone.settings import StandaloneSettings
from tests.support.gate import OPEN
from tests.support.stack import Stack

PROMPTS = [prompt.text for prompt in world.prompts()][:60]
CYCLE_VOTES = 16


def settings(folder: Path, log: LogSettings, *, min_win_rate: float = 0.2, traces: str = "") -> StandaloneSettings:
    """A standalone below `folder`, its model written, with cycles of few votes and a gate that lets most through; spans
    of every request are sent to `traces`."""
    write_tiny_model(folder / "model", weights_seed=1)
    values = {
        "state_dir": folder / "state",
        "model": str(folder / "model"),
        "tuning": "full",
        "log": log,
        "tracing": {"endpoint": traces},
        "chat": {
            "tracing": {"sample": 1.0},
            "http_port": 0,
            "grpc_port": 0,
            "engine": {"max_model_len": 128, "max_num_seqs": 32, "kv_cache_gib": 0.5},
        },
        "trainer": {
            "min_votes": CYCLE_VOTES,
            "cold_votes": 24,
            "reward": {"held_out": 0.2, "epochs": 1, "cold_epochs": 1, "policy_accuracy": 0.0},
            "policy": {"epochs": 1, "minibatches": 2},
            "rollout": {"per_cycle": 48, "max_tokens": 24},
            "gate": {"samples": 32, "win_rate": {"min": min_win_rate}, **OPEN},
        },
    }
    return StandaloneSettings.model_validate(values)


class Service(Protocol):
    """What people's requests are posted to: a `Stack`, or another chat service."""

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]: ...


def chat(stack: Service, prompt: str, **more: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": prompt}], "temperature": 1.0, "max_tokens": 24, **more}
    status, reply = stack.post("/v1/chat/completions", body)
    assert status == 200, reply
    assert reply["rlhf"]["logged"] is True
    return reply


def rank(stack: Service, prompt: str, acknowledged: set[str]) -> None:
    """Chat for four answers and rank them by length, shortest first."""
    reply = chat(stack, prompt, n=4)
    order = sorted(reply["choices"], key=lambda choice: len(choice["message"]["content"]))
    tiers = [[{"completion_id": reply["rlhf"]["completion_id"], "index": choice["index"]}] for choice in order]
    status, answer = stack.post("/v1/feedback", {"user": "ada", "ranking": {"tiers": tiers}})
    assert status == 200, answer
    acknowledged.add(answer["event_id"])


def vote(stack: Service, acknowledged: set[str], count: int = 40) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: rank(stack, PROMPTS[i % len(PROMPTS)], acknowledged), range(count)))


def live(stack: Stack) -> str:
    return open_registry(stack.state.versions).live("policy") or ""


def served(stack: Service) -> str:
    """The version that writes the next answer."""
    reply = chat(stack, PROMPTS[0], max_tokens=1)
    return reply["rlhf"]["versions"][0][-1]["policy_version"]


def pid(stack: Stack, name: str) -> int:
    """Process id of a service, or of the engine below the chat service."""
    pattern = {"trainer": "services.trainer", "engine": "engine.serve"}[name]
    found = [pid for pid, command in descendants(stack.process.pid).items() if pattern in command]
    assert found, f"no {name} process"
    return found[0]
