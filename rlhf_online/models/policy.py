"""The policy: a causal language model with a value head, and the frozen reference that it must stay near.

With `full` all weights learn and the reference is a second, frozen copy; with `lora` an adapter learns and the
reference is the same model with the adapter switched off, or with the weights of the reference version's adapter. The
value head reads the last hidden state.

Shapes: B pairs, A answer tokens, N real answer tokens of a batch, d hidden width (see `packing`). Invariants: dropout
is off; log-probabilities are computed in float32, at answer tokens only, in pieces (`token_head`); weights that learn
are float32, whatever the layers compute in (`precision`); what else is in a batch changes none of a pair's values.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_online.errors import InvalidInput
from rlhf_online.models import frozen, sampling, tree_attention, trunk
from rlhf_online.models.compiled import plainly
from rlhf_online.models.packing import Packed, Packer
from rlhf_online.models.precision import Written, computing
from rlhf_online.models.predictor import Predictor, hidden_states
from rlhf_online.models.sharding import Shards
from rlhf_online.models.tensor_headers import has_weights
from rlhf_online.models.tokens import Pair
from rlhf_online.versions.manifest import ProbeSequence

INFERENCE_TOKENS = 16384
NEW_LORA = trunk.Lora()


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a policy says of a batch's answers, each (B, A), 0 where masked: log-probabilities of the tokens, values of
    the states before them, and, where asked for, the entropies of the distributions that they come from (nats)."""

    logprobs_BA: Tensor
    values_BA: Tensor
    entropies_BA: Tensor | None = None


class Policy:
    """Built by `Policy.load`. `base` is where configuration and tokenizer files of written versions come from,
    `written` the types of their weights; layers compute in `dtype`. Large because it is what is loaded, learns and is
    written as one."""

    def __init__(
        self,
        lm: PreTrainedModel,
        *,
        base: Path,
        reference: PreTrainedModel | None,
        adapter: PeftModel | None,
        reference_adapter: dict[str, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
        written: Written | None = None,
    ) -> None:
        assert (reference is None) != (adapter is None), "either a frozen reference, or an adapter to switch off"
        self.lm = lm
        self.base = base
        self.dtype = dtype
        self.written = written or Written.of(base)
        self.reference = reference
        self._adapter = adapter
        self._reference_adapter = reference_adapter
        self.limits = trunk.limits(lm.config)
        self.packer = tree_attention.packer(lm, self.limits.context, dtype)
        self.lower = tree_attention.lower_layers(lm, self.packer, dtype)
        self._predictors = Predictor(lm, self.lower), Predictor(reference or lm, self.lower)
        # What an adapter learns is small, and its base would be put together again for each pass.
        policy, fixed = self._predictors
        self.shards = Shards(policy=policy, reference=fixed) if adapter is None else Shards()
        if reference is not None:
            tree_attention.adopt(reference)
        with trunk.seeded(0):
            self.value_head = nn.Linear(int(lm.config.hidden_size), 1).to(self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        _check_head(lm)

    @classmethod
    def load(
        cls,
        base: Path,
        *,
        tuning: Literal["full", "lora"],
        version: Path | None = None,
        reference: Path | None = None,
        lora: trunk.Lora = NEW_LORA,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> "Policy":
        """The policy of the version in the folder `version`, by default the base model.

        Layers compute in `dtype`. `reference` is the folder of the reference version: by default the one that is loaded
        (full), or the base model (lora). Raises InvalidInput for a folder without a usable model, VersionCorrupt for an
        adapter that does not fit.
        """
        device, masters = torch.device(device), torch.promote_types(dtype, torch.float32)
        if tuning == "lora":
            lm = trunk.load_lm(base, device=device, dtype=masters)
            adapter = trunk.add_lora(lm, lora, folder=version, seed=seed, task="CAUSAL_LM")
            policy = cls(
                lm,
                base=base,
                reference=None,
                adapter=adapter,
                reference_adapter=_adapter_of(lm, adapter, reference),
                dtype=dtype,
                written=Written.of(base).adapter(),
            )
            frozen.narrow(getattr(lm, lm.base_model_prefix), dtype)
            tree_attention.compiled(lm, policy.packer, dtype)
            return policy
        start = version or base
        lm = trunk.load_lm(start, device=device, dtype=masters).requires_grad_(True)
        fixed = trunk.load_lm(reference or start, device=device, dtype=masters).requires_grad_(False)
        written = Written.of(base if has_weights(base) else start)
        policy = cls(lm, base=base, reference=fixed, adapter=None, dtype=dtype, written=written)
        frozen.narrow(getattr(fixed, fixed.base_model_prefix), dtype)
        for model in (lm, fixed):
            tree_attention.compiled(model, policy.packer, dtype)
        return policy

    @property
    def device(self) -> torch.device:
        return self.lm.device

    def token_budget(self, limit: int, needed: int = 0) -> int:
        """Tokens of a forward pass with gradients: `limit`, or fewer where the memory that is free, once `needed` bytes
        are taken of it, asks for it."""
        return trunk.token_budget(self.lm, limit, trunk.free_room(self.device, needed), self.dtype, self.lower.count)

    def collate(self, pairs: Sequence[Pair]) -> Packed:
        """Raises InvalidInput for an answer as long as the model's context."""
        return self.packer.pack(pairs)

    # Computing

    def forward(self, batch: Packed, temperature_B: float | Tensor = 1.0, *, entropies: bool = False) -> Outputs:
        """`temperature_B` is that of the sampling: logits are divided by it."""
        with computing(self.device, self.dtype):
            hidden_Nd, logprobs_N, entropies_N = self._predictors[0](batch, temperature_B, entropies=entropies)
        return Outputs(
            batch.by_answer(logprobs_N),
            batch.by_answer(values(self.value_head, hidden_Nd)),
            None if entropies_N is None else batch.by_answer(entropies_N),
        )

    @torch.no_grad()
    def reference_logprobs(self, batch: Packed, temperature_B: float | Tensor = 1.0) -> Tensor:
        """Log-probabilities of the answer tokens under the reference, (B, A), 0 where masked."""
        with self.as_reference(), computing(self.device, self.dtype):
            return batch.by_answer(self._predictors[1](batch, temperature_B)[1])

    @torch.no_grad()
    def logprobs(
        self, pairs: Sequence[Pair], *, temperature: float = 1.0, reference: bool = False, exact: bool = False
    ) -> list[tuple[float, ...]]:
        """For each pair, the log-probability of each of its answer tokens; in the order of `pairs`. `exact`: in the
        weights' own type."""

        def said(batch: Packed) -> tuple[Tensor]:
            if reference:
                return (self.reference_logprobs(batch, temperature),)
            with _exactly(self.lm) if exact else computing(self.device, self.dtype):
                return (batch.by_answer(self._predictors[0](batch, temperature)[1]),)

        packer = replace(self.packer, spans=False) if exact else self.packer
        return [logprobs for (logprobs,) in of_each(packer, pairs, said)]

    def probe(self, sequences: Sequence[Sequence[int]]) -> tuple[ProbeSequence, ...]:
        """What these weights say about token sequences (two tokens or more), for a version's manifest: in float32,
        whatever layers compute in here, since an engine computes in a type of its own."""
        logprobs = self.logprobs([(ids[:1], ids[1:]) for ids in sequences], exact=True)
        return tuple(
            ProbeSequence(token_ids=tuple(ids), logprobs=values)
            for ids, values in zip(sequences, logprobs, strict=True)
        )

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        temperature: float,
        seed: int,
        eos_ids: Sequence[int],
    ) -> list[tuple[int, ...]]:
        """One answer a prompt (`sampling.sample`), of which the end is kept where it leaves no room for the answer."""
        cut = [tuple(prompt)[-max(1, self.limits.context - max_tokens) :] for prompt in prompts]
        with plainly(), computing(self.device, self.dtype):
            return sampling.sample(
                self.lm, cut, max_tokens=max_tokens, temperature=temperature, seed=seed, eos_ids=eos_ids
            )

    @contextmanager
    def as_reference(self) -> Iterator[PreTrainedModel]:
        """While the block runs the model that it gives is the reference."""
        if self._adapter is None:
            assert self.reference is not None, "either a frozen reference, or an adapter to switch off"
            yield self.reference
            return
        stored = self._reference_adapter
        with self._adapter.disable_adapter() if stored is None else trunk.swapped(self.parameters(), stored):
            yield self.lm

    # Learning and keeping

    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns besides the value head: all weights, or the adapter's."""
        return {name: parameter for name, parameter in self.lm.named_parameters() if parameter.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """All that learns, as copies on the CPU."""
        return trunk.named("policy", dict(self.parameters())) | trunk.named(
            "value", dict(self.value_head.named_parameters())
        )

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether it is of a policy of this shape: an adapter may have another rank, or other layers."""
        return trunk.same_names(self.parameters(), trunk.unnamed("policy", tensors))

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` gave. Raises VersionCorrupt for another model's."""
        trunk.restore(self.parameters(), trunk.unnamed("policy", tensors))
        trunk.restore(dict(self.value_head.named_parameters()), trunk.unnamed("value", tensors))

    def write_version(self, folder: Path) -> None:
        """Write the files that the engine serves: a complete model folder, or the adapter's two files."""
        if self._adapter is not None:
            trunk.save_adapter(self._adapter, folder, self.written.usual)
        else:
            trunk.save_model(self.lm, folder, base=self.base, written=self.written, keep_config=True)


def of_each(
    packer: Packer, pairs: Sequence[Pair], said: Callable[[Packed], Sequence[Tensor]]
) -> list[list[tuple[float, ...]]]:
    """For each pair, in their order, what `said` says of its answer tokens: of a batch (B, A) each."""
    found: dict[int, list[tuple[float, ...]]] = {}
    for group in packer.passes([[pair] for pair in pairs], INFERENCE_TOKENS):
        told = [values_BA.tolist() for values_BA in said(packer.pack([pairs[index] for index in group]))]
        for place, index in enumerate(group):
            found[index] = [tuple(rows[place][: len(pairs[index][1])]) for rows in told]
    return [found[index] for index in range(len(pairs))]


def values(head: nn.Linear, hidden_Nd: Tensor) -> Tensor:
    """Of states, (N,)."""
    return head(hidden_Nd.to(head.weight.dtype)).squeeze(-1)


@contextmanager
def _exactly(lm: PreTrainedModel) -> Iterator[None]:
    """While the block runs `lm` computes in its weights' own type, narrowed ones as wide as they were."""
    with plainly(), frozen.widened(lm):
        yield


def logits(policy: Policy, batch: Packed, *, reference: bool = False) -> Tensor:
    """Of every token after each state before an answer token, float32, (N, V): for batches that are small."""
    chosen = policy.as_reference() if reference else nullcontext(policy.lm)
    with chosen as lm, computing(policy.device, policy.dtype):
        return trunk.output_head(lm)(hidden_states(lm, batch)).float()


def output_embedding(policy: Policy) -> Tensor:
    """That of the reference, (V, d), which does not learn."""
    with policy.as_reference() as lm:
        head = trunk.output_head(lm)
        assert isinstance(head, nn.Linear), "an output layer is linear"
        return head.weight.detach()


@torch.no_grad()
def _check_head(lm: PreTrainedModel) -> None:
    """Raises InvalidInput for a model that does more to its logits than multiply by the output embedding."""
    tokens_BT = torch.arange(2, device=lm.device).reshape(1, 2)
    decoder = getattr(lm, lm.base_model_prefix)
    ours_BTV = trunk.output_head(lm)(decoder(input_ids=tokens_BT, use_cache=False).last_hidden_state)
    theirs_BTV = lm(input_ids=tokens_BT, use_cache=False).logits
    if not torch.allclose(ours_BTV, theirs_BTV.to(ours_BTV), atol=1e-3, rtol=1e-2):
        raise InvalidInput(
            f"a {lm.config.model_type!r} model rescales its logits, which training does not do: use another model"
        )


def _adapter_of(lm: PreTrainedModel, wrapped: PeftModel, folder: Path | None) -> dict[str, Tensor] | None:
    """The weights that the adapter in `lm` would have from `folder`; None if that holds none."""
    if folder is None or not (folder / trunk.ADAPTER_CONFIG).is_file():
        return None
    parameters = {name: parameter for name, parameter in lm.named_parameters() if parameter.requires_grad}
    own = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    trunk.load_adapter(wrapped, folder)
    found = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    trunk.restore(parameters, own)
    return found
