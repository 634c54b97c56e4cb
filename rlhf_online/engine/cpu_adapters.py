"""Adapters on a CPU: each is multiplied once by all tokens that it answers.

vLLM's own kernels for CPUs (`torch_ops.bgmv_*`, 0.32) first copy an adapter's matrices once for each token, some 20 MB
a token for a model of 135 million weights at rank 16, and multiply then, which takes longer than all else of a step.
And for them the place -1, which is that of a token without an adapter, is the last place, so that the base model's
answers are computed with whichever adapter lies there. Here tokens are taken together by their adapters, and others
are left alone.

Shapes: T tokens of a step, i and o a layer's inputs and outputs, r the greatest rank, P places for adapters. The
matrices of adapters are A (P, 1, r, i) and B (P, 1, o, r); a layer of several slices (q, k and v) has a pair for each.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

Rows = list[tuple[int, Tensor | None]]
"""Each place that is asked for, and the tokens that ask for it; None for all of them."""


class ByAdapter(PunicaWrapperCPU):
    """What vLLM's layers add an adapter's part by."""

    _tokens: Rows
    _sampled: Rows

    @classmethod
    def take_over(cls, model: nn.Module) -> None:
        """Have the layers of `model` compute this way. Asked again nothing is done."""
        for module in model.modules():
            wrapper: Any = getattr(module, "punica_wrapper", None)
            if type(wrapper) is PunicaWrapperCPU:
                # The manager of adapters holds the same object, and tells it what each step asks for.
                wrapper.__class__ = cls
                cls.group(wrapper)  # pyright: ignore[reportArgumentType]

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Which adapter each token of the next steps has."""
        super().update_metadata(*args, **kwargs)
        self.group()

    def group(self) -> None:
        """Take the tokens together by what was told last."""
        known = self.indices_len[0] is not None
        self._tokens = rows(self.token_lora_indices) if known else []
        self._sampled = rows(self.sampler_indices) if known else []

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: Sequence[Tensor],
        lora_b_stacked: Sequence[Tensor],
        scale: float,
        output_slices: Sequence[int],
        **kwargs: Any,
    ) -> None:
        """y (T, o) += x (T, i) Aᵀ Bᵀ · scale, slice by slice of o."""
        slices = [*zip(lora_a_stacked, lora_b_stacked, _slices(y, output_slices), strict=True)]
        for place, tokens, own in asking(x, self._tokens):
            for a, b, part in slices:
                add(part, (own @ a[place, 0].T) * scale, b[place, 0], tokens)

    def add_lora_embedding(
        self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, add_inputs: bool = True, **kwargs: Any
    ) -> None:
        """y (T, o) += x (T, r) Bᵀ."""
        for place, tokens, own in asking(x, self._tokens):
            add(y, own, lora_b_stacked[place, 0], tokens)

    def add_lora_logits(
        self, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **kwargs: Any
    ) -> None:
        """y (S, o) += x (S, i) Aᵀ Bᵀ · scale, for the S tokens that something is sampled after; o may be padded."""
        for place, tokens, own in asking(x, self._sampled):
            b = lora_b_stacked[place, 0]
            add(y[:, : len(b)], (own @ lora_a_stacked[place, 0].T) * scale, b, tokens)


def rows(places_T: Tensor) -> Rows:
    """The tokens by place; those without an adapter are in none."""
    found: Rows = []
    for place in places_T[places_T >= 0].unique().tolist():
        asking_T = places_T == place
        found.append((place, None if bool(asking_T.all()) else asking_T.nonzero()[:, 0]))
    return found


def asking(x: Tensor, rows: Rows) -> Iterator[tuple[int, Tensor | None, Tensor]]:
    """Each place, the tokens that ask for it, and their rows of x."""
    for place, tokens in rows:
        yield place, tokens, x if tokens is None else x[tokens]


def add(y: Tensor, low: Tensor, b: Tensor, tokens: Tensor | None) -> None:
    """y (T, o) += low (…, r) bᵀ (r, o), in these rows of y."""
    if tokens is None:
        y.addmm_(low, b.T)
    else:
        y.index_add_(0, tokens, low @ b.T)


def _slices(y: Tensor, widths: Sequence[int]) -> Iterator[Tensor]:
    begin = 0
    for width in widths:
        yield y[:, begin : begin + width]
        begin += width
