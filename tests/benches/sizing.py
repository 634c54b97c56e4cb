"""What is kept of a message, a vote and a weight: `make bench BENCH=sizing` (`ARGS="--json"`), a minute.

The factors of `rlhf-online size` that no other bench measures. Records are encoded as the chat service logs them, with
token ids and log-probs of the usual size and four characters a token; what is kept of models is what one cycle of a
trainer writes in the tiny world (all weights, float32), counted by its weights.
"""

import argparse
import math
import random
import tempfile
from pathlib import Path

from rlhf_online.events import Answer, AnswerRef, Completion, Envelope, Feedback, Message, Sampling, Thumb, VersionSpan
from rlhf_online.models.tensor_headers import read_header
from rlhf_online.wire import encode
from tests.benches.support.figures import show
from tests.support.trainer_world import world

VOCABULARY, CHARACTERS = 100_000, 4


def completion(prompt: int, answer: int) -> bytes:
    """A record of one answer of so many tokens to a prompt of so many, all of it one message."""
    rng = random.Random(0)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(VOCABULARY) for _ in range(count))

    event = Completion(
        completion_id="chatcmpl-0123456789abcdef0123456789abcdef",
        conversation_id="conversation-0123456789abcdef",
        person="0123456789abcdef0123456789abcdef",
        messages=(Message(role="user", content="word"[:CHARACTERS] * prompt),),
        prompt_token_ids=ids(prompt),
        answers=(
            Answer(
                index=0,
                text="word" * answer,
                token_ids=ids(answer),
                logprobs=tuple(-rng.random() for _ in range(answer)),
                spans=(VersionSpan(policy_version="policy-000001", first_token=0),),
                finish_reason="stop",
            ),
        ),
        sampling=Sampling(),
        started_ms=1_800_000_000_000,
        finished_ms=1_800_000_010_000,
    )
    return encode(Envelope(event_id=event.completion_id, event=event))


def vote() -> bytes:
    """A record of one thumb."""
    answer = AnswerRef(completion_id="chatcmpl-0123456789abcdef0123456789abcdef")
    event = Feedback(
        conversation_id="conversation-0123456789abcdef",
        person="0123456789abcdef0123456789abcdef",
        kind=Thumb(answer=answer, up=True),
        created_ms=1_800_000_000_000,
    )
    return encode(Envelope(event_id="0123456789abcdef0123456789abcdef", event=event))


def records() -> dict[str, float]:
    """Bytes of records: what each has, and what a token adds."""
    base, prompt, answer = (len(completion(*tokens)) for tokens in ((1, 1), (1001, 1), (1, 1001)))
    prompt_token, answer_token = (prompt - base) / 1000, (answer - base) / 1000
    return {
        "answer_record_bytes": round(base - prompt_token - answer_token),
        "prompt_token_bytes": round(prompt_token, 2),
        "answer_token_bytes": round(answer_token, 2),
        "vote_record_bytes": len(vote()),
    }


def models(folder: Path) -> dict[str, float]:
    """Bytes a weight of what one cycle leaves: versions, and the parts of a checkpoint."""
    with world(folder) as tiny:
        tiny.chat(14)
        with tiny.trainer() as trainer:
            assert trainer.run_once()
        policy, reward = (tiny.registry.live(kind) for kind in ("policy", "reward"))
        assert policy and reward
        newest = max(path.parent for path in tiny.state.checkpoints.glob("[0-9]*/manifest.json"))
        files = tiny.registry.path(policy).glob("*.safetensors")
        weights = sum(math.prod(tensor.shape) for path in files for tensor in read_header(path).values())
        return {
            "version_bytes_a_weight": round(size(tiny.registry.path(policy)) / weights, 2),
            "reward_version_bytes_a_weight": round(size(tiny.registry.path(reward)) / weights, 2),
            "policy_checkpoint_bytes_a_weight": round(size(newest, "policy.safetensors") / weights, 2),
            "reward_checkpoint_bytes_a_weight": round(size(newest, "reward.safetensors") / weights, 2),
        }


def size(folder: Path, begins: str = "") -> int:
    """Bytes of the safetensors files whose names begin so; what mends them is at most a few MiB a file."""
    files = (path for path in folder.rglob("*.safetensors") if path.name.startswith(begins))
    return sum(path.stat().st_size for path in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-sizing-") as folder:
        show({**records(), **models(Path(folder)), "ok": True}, as_json=options.json)


if __name__ == "__main__":
    main()
