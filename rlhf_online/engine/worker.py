"""What runs inside vLLM's worker: other weights are loaded, and the log-probabilities of given sequences under them.

vLLM mixes `Probe` into its worker class (`--worker-extension-cls rlhf_online.engine.worker.Probe`); its methods are
called through `POST /collective_rpc`. While the scheduler is paused no request of the normal kind runs, so `probe`
hands the model runner a step of its own, built as vLLM's warm-up builds its steps, and then a second one that removes
the probe's requests again.

Invariant: call `probe` only while the engine is paused and after `/reset_prefix_cache?reset_running_requests=true`
succeeded. Every running request is then preempted: it holds no cache block, and the scheduler sends its whole state
again when it resumes. So the blocks may be overwritten and the runner's batch emptied. Sampling is greedy, which draws
no random number.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vllm import SamplingParams
from vllm.model_executor.layers.quantization.base_config import QuantizeMethodBase
from vllm.v1.core.sched.output import NewRequestData, SchedulerOutput

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_worker import Worker as Base
else:
    Base = object

FIRST_BLOCK = 1  # block 0 is the null block, which unused table entries point at
PREFIX = "rlhf-probe-"


class Probe(Base):
    """Methods that vLLM adds to its worker."""

    def load(self, weights_path: str) -> None:
        """Load all weights from a folder of safetensors, in place.

        An engine that started on dummy weights has a loader that cannot read files; it is replaced by the normal one.
        """
        self.vllm_config.load_config.load_format = "safetensors"
        self.reload_weights(weights_path=weights_path)
        process_shared_weights(self.get_model())

    def group_by_adapter(self) -> None:
        """On a CPU have each adapter multiplied once by all tokens that it answers; see `cpu_adapters`."""
        if self.vllm_config.device_config.device_type == "cpu":
            from rlhf_online.engine.cpu_adapters import ByAdapter

            ByAdapter.take_over(self.get_model())

    def probe(self, token_id_lists: list[list[int]]) -> list[list[float | None]]:
        """log p(token i+1 | tokens 0..i) at temperature 1 for each sequence; None where it is not finite.

        Raises ValueError for a sequence that the engine could not serve either: shorter than two tokens, longer than
        `max_model_len` or one step's token budget, or with ids outside the vocabulary.
        """
        limits = Limits.of(self.vllm_config, self.model_runner.kv_cache_config)
        for tokens in token_id_lists:
            limits.check(tokens)
        logprobs: list[list[float | None]] = []
        start = 0
        while start < len(token_id_lists):
            count = limits.fitting(token_id_lists[start:])
            logprobs += self._probe_step(token_id_lists[start : start + count], limits.block_sizes)
            start += count
        return logprobs

    def _probe_step(self, token_id_lists: list[list[int]], block_sizes: list[int]) -> list[list[float | None]]:
        step, requests = SchedulerOutput.make_empty(), {}
        # Model runner V2 keeps a slot for each preempted request until it is told; they come back as new ones.
        states = getattr(self.model_runner, "req_states", None)
        step.preempted_req_ids = set(states.req_id_to_index) if states is not None else None
        block = FIRST_BLOCK
        for number, tokens in enumerate(token_id_lists):
            blocks = []
            for size in block_sizes:
                needed = blocks_for(tokens, size)
                blocks.append(list(range(block, block + needed)))
                block += needed
            requests[f"{PREFIX}{number}"] = request(f"{PREFIX}{number}", tokens, tuple(blocks))
        step.scheduled_new_reqs = list(requests.values())
        step.num_scheduled_tokens = {name: len(tokens) for name, tokens in zip(requests, token_id_lists, strict=True)}
        step.total_num_scheduled_tokens = sum(step.num_scheduled_tokens.values())
        cleanup = SchedulerOutput.make_empty()
        cleanup.finished_req_ids = set(requests)
        try:
            output: Any = self.execute_model(step)
            if output is None:
                output = self.sample_tokens(None)
            if hasattr(output, "get_output"):  # asynchronous scheduling: wait for the copy from the device
                output = output.get_output()
        finally:
            self.execute_model(cleanup)
        return [chosen(output.prompt_logprobs_dict[name]) for name in requests]


def process_shared_weights(model: Any) -> None:
    """Have the layers that share another layer's weights make anew what they compute with.

    A reload processes the layers that it loads tensors into. A tied output head has none of its own, and on a CPU vLLM
    computes it from a packed copy of the embedding's weights, which would stay that of the weights before. As at a
    start, every layer is processed, and those that share after those that were loaded; where nothing is packed, as on
    a GPU, processing does nothing.
    """
    known: set[int] = set()
    for module in model.modules():
        own = {id(parameter) for parameter in module.parameters(recurse=False)}
        method = getattr(module, "quant_method", None)
        if own & known and isinstance(method, QuantizeMethodBase):
            method.process_weights_after_loading(module)
        known |= own


@dataclass(frozen=True, slots=True)
class Limits:
    """What fits into one step of this engine."""

    tokens: int
    sequences: int
    blocks: int
    length: int
    vocabulary: int
    block_sizes: list[int]

    @classmethod
    def of(cls, vllm_config: Any, kv_cache_config: Any) -> "Limits":
        scheduler = vllm_config.scheduler_config
        return cls(
            tokens=scheduler.max_num_batched_tokens,
            sequences=scheduler.max_num_seqs,
            blocks=kv_cache_config.num_blocks - FIRST_BLOCK,
            length=vllm_config.model_config.max_model_len,
            vocabulary=vllm_config.model_config.get_vocab_size(),
            block_sizes=[group.kv_cache_spec.block_size for group in kv_cache_config.kv_cache_groups],
        )

    def check(self, tokens: list[int]) -> None:
        longest = min(self.length, self.tokens)
        if not 2 <= len(tokens) <= longest:
            raise ValueError(f"a probe sequence has {len(tokens)} tokens; this engine takes 2 to {longest}")
        if not all(0 <= token < self.vocabulary for token in tokens):
            raise ValueError(f"a probe sequence has token ids outside the vocabulary of {self.vocabulary}")

    def fitting(self, token_id_lists: list[list[int]]) -> int:
        """How many of the first sequences fit into one step; at least 1."""
        total_tokens = total_blocks = 0
        for count, tokens in enumerate(token_id_lists[: self.sequences]):
            total_tokens += len(tokens)
            total_blocks += sum(blocks_for(tokens, size) for size in self.block_sizes)
            if total_tokens > self.tokens or total_blocks > self.blocks:
                return max(count, 1)
        return min(len(token_id_lists), self.sequences)


def blocks_for(tokens: list[int], block_size: int) -> int:
    """Blocks for the sequence and the one token that is sampled after it."""
    return math.ceil((len(tokens) + 1) / block_size)


def request(name: str, tokens: list[int], blocks: tuple[list[int], ...]) -> NewRequestData:
    return NewRequestData(
        req_id=name,
        prompt_token_ids=tokens,
        mm_features=[],
        sampling_params=SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0),
        pooling_params=None,
        block_ids=blocks,
        num_computed_tokens=0,
        lora_request=None,
        prefill_token_ids=tokens,
    )


def chosen(prompt_logprobs: Any) -> list[float | None]:
    """The log-probs of the prompt's own tokens: vLLM puts them into column 0 of its (T-1, 1 + k) table."""
    return [value if math.isfinite(value) else None for value in prompt_logprobs.logprobs[:, 0].tolist()]
