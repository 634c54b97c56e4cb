"""What transformers computes for the model in a folder, or for it with an adapter: the probe of a version that no
trainer has written.

`python -m rlhf_online.models.first_probe FOLDER [ADAPTER]` prints it as JSON. It is a process of its own, so that the
memory goes with it, and since those who make the first version import no torch; it computes on the CPU, so that it can
run while an engine takes the GPU.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import PreTrainedModel

from rlhf_online import process
from rlhf_online.errors import InvalidInput, RlhfError
from rlhf_online.events import Message
from rlhf_online.models import sampling, trunk
from rlhf_online.models.tokens import ChatTokenizer
from rlhf_online.versions.manifest import ProbeSequence

QUESTIONS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "How do I boil an egg?",
    "Explain in one sentence why the sky is blue.",
    "def add(a, b): what comes next?",
    "Translate 'good morning' into German.",
    "Give me three names for a cat.",
    "What is 17 times 3?",
)
ANSWER_TOKENS, PROBE_TOKENS = 16, 64
TEMPERATURE = 0.3
"""Of the answers: an engine tells the log-probs of likely tokens alone where it serves adapters."""


@torch.inference_mode()
def first_probe(model: Path, adapter: Path | None = None) -> tuple[ProbeSequence, ...]:
    """Questions with answers that the model samples, and the log-probabilities of their tokens in float32.

    Raises InvalidInput for a folder whose model or tokenizer transformers cannot load, VersionCorrupt for an adapter
    that does not fit.
    """
    tokenizer = ChatTokenizer(model)
    lm = trunk.load_lm(model, device=torch.device("cpu"), dtype=torch.float32)
    if adapter is not None:
        trunk.add_lora(lm, trunk.Lora(), folder=adapter, seed=0, task="CAUSAL_LM")
    prompts = [_prompt_ids(tokenizer, question) for question in QUESTIONS]
    answers = sampling.sample(
        lm, prompts, max_tokens=ANSWER_TOKENS, temperature=TEMPERATURE, seed=0, eos_ids=tokenizer.eos_ids
    )
    sequences = [(prompt + answer)[-PROBE_TOKENS:] for prompt, answer in zip(prompts, answers, strict=True)]
    return tuple(ProbeSequence(token_ids=ids, logprobs=_logprobs(lm, ids)) for ids in sequences)


def _prompt_ids(tokenizer: ChatTokenizer, question: str) -> tuple[int, ...]:
    """The question in the model's chat template; as plain text where it has none."""
    try:
        return tokenizer.prompt_ids([Message(role="user", content=question)])
    except InvalidInput:
        return tokenizer.answer_ids(question)[:-1]


def _logprobs(lm: PreTrainedModel, token_ids: Sequence[int]) -> tuple[float, ...]:
    tokens_T = torch.tensor(token_ids, device=lm.device)
    logits_TV = lm(input_ids=tokens_T.unsqueeze(0), use_cache=False).logits[0, :-1].float()
    return tuple(logits_TV.log_softmax(-1).gather(1, tokens_T[1:, None])[:, 0].tolist())


def main() -> int:
    """Returns the exit code."""
    process.die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m rlhf_online.models.first_probe", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("adapter", type=Path, nargs="?", help="folder of an adapter of it")
    given = parser.parse_args()
    try:
        print(json.dumps([asdict(item) for item in first_probe(given.model, given.adapter)]))
    except RlhfError as error:
        return process.report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
