"""Several sequences a row: token ids without padding between them, and without attention from one to another.

    tokens_RT     p p a p a a ·      R rows, T tokens of the longest row
    position_RT   0 1 2 0 1 2 0      where it falls to 0 another sequence begins (the padding is one, too)
    row_N         0 0 0              N answer tokens: the row of each,
    before_N      1 3 4              the column whose hidden state predicts it,
    answer_N      a a a              and the token itself

transformers' attention masks follow positions that begin anew, whatever the kind of attention (causal, sliding window,
flash); `is_exact` asks a model whether its own do. Invariant: no sequence is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_online.models.tokens import Pair, length


@dataclass(frozen=True, slots=True)
class Packed:
    """Pairs in rows; the module's docstring draws the layout."""

    tokens_RT: Tensor
    position_RT: Tensor
    row_N: Tensor
    before_N: Tensor
    answer_N: Tensor


def pack(pairs: Sequence[Pair], *, width: int, pad_id: int, device: torch.device | str = "cpu") -> Packed:
    """The pairs in rows of at most `width` tokens, those of a longer pair excepted; with 0, each has its own row."""
    rows = _first_fit([length(pair) for pair in pairs], width)
    longest = max(sum(length(pairs[index]) for index in row) for row in rows)
    tokens, positions = [], []
    row_N: list[int] = []
    before_N: list[int] = []
    answer_N: list[int] = []
    for number, row in enumerate(rows):
        ids: list[int] = []
        places: list[int] = []
        for prompt, answer in (pairs[index] for index in row):
            first = len(ids) + len(prompt) - 1
            row_N += [number] * len(answer)
            before_N += range(first, first + len(answer))
            answer_N += answer
            places += range(len(prompt) + len(answer))
            ids += [*prompt, *answer]
        rest = longest - len(ids)
        tokens.append(ids + [pad_id] * rest)
        positions.append(places + list(range(rest)))
    return Packed(
        tokens_RT=torch.tensor(tokens).to(device),
        position_RT=torch.tensor(positions).to(device),
        row_N=torch.tensor(row_N).to(device),
        before_N=torch.tensor(before_N).to(device),
        answer_N=torch.tensor(answer_N).to(device),
    )


@torch.no_grad()
def is_exact(lm: PreTrainedModel) -> bool:
    """True if the model gives two sequences of a row what it gives each of them alone.

    One whose layers remember more than they attend to (recurrent ones) does not.
    """
    pairs: list[Pair] = [((0,), (1, 0, 1)), ((1, 1), (0, 1))]
    decoder = getattr(lm, lm.base_model_prefix)

    def hidden_Nd(width: int) -> Tensor:
        packed = pack(pairs, width=width, pad_id=0, device=lm.device)
        hidden_RTd = decoder(
            input_ids=packed.tokens_RT, position_ids=packed.position_RT, use_cache=False
        ).last_hidden_state
        return hidden_RTd[packed.row_N, packed.before_N]

    return torch.allclose(hidden_Nd(0), hidden_Nd(16), rtol=1e-3, atol=1e-3)


def _first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indices in rows of at most `width` together: the longest first, each into the first row that has room."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        row = next((row for row, free in enumerate(room) if free >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows
