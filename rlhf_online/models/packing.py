"""Sequences packed into rows, without padding between them; what several begin with alike is computed once.

A row is a prefix tree of its sequences in depth-first order, so that a prompt with four answers stands there once, and
prompts that begin with the same system message share it. The pairs (p q | a b), (p q | a c), (r | d) make

    tokens_RT     p q a b c r d ·     R rows, T tokens of the longest row
    position_RT   0 1 2 3 3 0 1 0     each token's place in its own sequence
    until_RT      5 5 5 4 5 7 7 8     the column from which on nobody sees it

and column k is seen from column q if k ≤ q < until_k: by all that follows in its branch, and by nothing else. What a
model computes of a token is what it computes of that sequence alone, and the gradients are the same sums. What
concerns answers is laid out by pair (B) and answer token (A); places are those in the flattened rows:

    at_BA         2 3 · 2 4 · 6       where each answer token stands
    before_N      1 2 1 2 5           where the state stands that predicts it; N answer tokens, pair by pair
    answer_N      a b a c d           and the token itself
    place_N                           its own place in a flattened (B, A) tensor

A model that cannot read trees (`tree_attention.adopt`) gets each pair in a row of its own, right padded: its attention
is causal, so that no real token sees the padding. Invariants: no sequence is cut; nothing here reads a tensor back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain

import numpy as np
import torch
from torch import Tensor

from rlhf_online.models.tokens import Pair, fit, length
from rlhf_online.models.transfer import onto

NUMBERS = {torch.long: np.int64, torch.int32: np.int32, torch.bool: np.bool_}

ROW_WIDTH = 4
"""A row holds this many times the longest sequence: wider ones make a dense mask dear, narrower ones part a prompt from
its answers."""


@dataclass(frozen=True, slots=True)
class Spans:
    """A single row, for attention over sequences of many lengths: each run of new tokens asks (`cu_queries`), and sees
    what stands above it in the tree and itself (`keys_K`, by `cu_keys`; None where no two sequences begin alike, and it
    sees its own tokens alone)."""

    keys_K: Tensor | None
    cu_queries: Tensor
    cu_keys: Tensor
    longest_query: int
    longest_key: int


@dataclass(frozen=True, slots=True)
class Tree:
    """Who sees whom in rows that hold several sequences. With `spans` no mask is ever made."""

    position_RT: Tensor
    until_RT: Tensor
    spans: Spans | None = None

    def seen(self, window: int | None = None) -> Tensor:
        """True at (row, 0, q, k) where q sees k: with a `window`, not that many tokens back or further."""
        column_T = torch.arange(self.until_RT.shape[1], device=self.until_RT.device)
        query_T1 = column_T.unsqueeze(1)
        seen_RTT = (column_T <= query_T1) & (query_T1 < self.until_RT.unsqueeze(1))
        if window is not None:
            seen_RTT &= self.position_RT.unsqueeze(2) - self.position_RT.unsqueeze(1) < window
        return seen_RTT.unsqueeze(1)


@dataclass(frozen=True, slots=True)
class Packed:
    """Pairs in rows; the module's docstring draws the layout. Without `tree` each pair has a row of its own."""

    tokens_RT: Tensor
    tree: Tree | None
    at_BA: Tensor
    before_N: Tensor
    answer_N: Tensor
    place_N: Tensor
    mask_BA: Tensor
    last_B: Tensor
    """Where each pair's last token stands: of an empty answer, the prompt's."""
    pairs: Sequence[Pair] = ()
    paths: Sequence[Sequence[int]] = ()
    """Where each pair's tokens stand, the prompt's and the answer's."""

    def by_answer(self, values_N: Tensor) -> Tensor:
        """Values of the answer tokens as (B, A), 0 where there is none."""
        empty = values_N.new_zeros(self.mask_BA.numel())
        return empty.index_copy(0, self.place_N, values_N).view(self.mask_BA.shape)

    def by_token(self, values_B: Tensor) -> Tensor:
        """Values of the pairs, for each of their answer tokens, (N,)."""
        return values_B[self.place_N // self.mask_BA.shape[1]]


def pack(
    pairs: Sequence[Pair], *, width: int | None, pad_id: int, device: torch.device | str = "cpu", spans: bool = False
) -> Packed:
    """The pairs in trees of at most `width` tokens, those of a longer pair excepted.

    With 0 each has its own row; None: all are in one, and attention may be given `spans`.
    """
    rows, columns = _rows(pairs, width)
    longest = max(len(row.tokens) for row in rows)
    most = max(1, max(len(answer) for _, answer in pairs))
    before: list[int] = []
    at: list[list[int]] = []
    paths = [[number * longest + column for column in path] for number, path in columns]
    for path, (prompt, _) in zip(paths, pairs, strict=True):
        flat = path[len(prompt) - 1 :]
        before += flat[:-1]
        own = flat[1:] or flat
        at.append(own + [own[-1]] * (most - len(own)))
    runs = rows[0].runs if spans else []
    for row in rows:
        row.close(longest, pad_id)

    def on_device(values: Sequence[object], dtype: torch.dtype = torch.long) -> Tensor:
        # numpy reads a list of numbers ten times as fast as torch does.
        return onto(torch.from_numpy(np.array(values, NUMBERS[dtype])), device)

    counts = [len(answer) for _, answer in pairs]
    tree = None
    if width != 0:
        tree = Tree(
            position_RT=on_device([row.positions for row in rows]),
            until_RT=on_device([row.until for row in rows]),
            spans=_spans(runs, on_device) if spans else None,
        )
    return Packed(
        tokens_RT=on_device([row.tokens for row in rows]),
        tree=tree,
        at_BA=on_device(at),
        before_N=on_device(before),
        answer_N=on_device([token for _, answer in pairs for token in answer]),
        place_N=on_device([row * most + place for row, count in enumerate(counts) for place in range(count)]),
        mask_BA=on_device([[True] * count + [False] * (most - count) for count in counts], torch.bool),
        last_B=on_device([places[-1] for places in at]),
        pairs=pairs,
        paths=paths,
    )


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


@dataclass(slots=True)
class _Row:
    """A row that is being filled, its sequences in lexical order."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    until: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)
    """The columns of the last sequence's tokens."""
    runs: list[tuple[int, list[int]]] = field(default_factory=list)
    """New tokens of each sequence, and the columns that the last of them sees."""
    last: Sequence[int] = ()

    def add(self, sequence: Sequence[int]) -> None:
        begin, known = len(self.tokens), shared(self.last, sequence)
        for column in self.path[known:]:
            self.until[column] = begin
        new = len(sequence) - known
        self.path[known:] = range(begin, begin + new)
        self.tokens += sequence[known:]
        self.positions += range(known, len(sequence))
        self.until += [-1] * new
        if new:
            self.runs.append((new, self.path.copy()))
        self.last = sequence

    def close(self, width: int, pad_id: int) -> None:
        """Fill it up to `width`; the padding is a sequence by itself, all of it at a place that every model has."""
        end, rest = len(self.tokens), width - len(self.tokens)
        self.until = [end if column < 0 else column for column in self.until] + [width] * rest
        self.tokens += [pad_id] * rest
        self.positions += [0] * rest


def _rows(pairs: Sequence[Pair], width: int | None) -> tuple[list[_Row], list[tuple[int, list[int]]]]:
    """Rows, and of each pair its row and the columns of its tokens."""
    sequences = [(*prompt, *answer) for prompt, answer in pairs]
    order = range(len(pairs)) if width == 0 else sorted(range(len(pairs)), key=sequences.__getitem__)
    rows = [_Row()]
    columns: list[tuple[int, list[int]]] = [(0, [])] * len(pairs)
    for index in order:
        sequence = sequences[index]
        new = len(sequence) - shared(rows[-1].last, sequence)
        if rows[-1].tokens and width is not None and len(rows[-1].tokens) + new > width:
            rows.append(_Row())
        rows[-1].add(sequence)
        columns[index] = (len(rows) - 1, rows[-1].path.copy())
    return rows, columns


def _spans(runs: Sequence[tuple[int, list[int]]], on_device: Callable[..., Tensor]) -> Spans:
    queries, keys = [new for new, _ in runs], [len(path) for _, path in runs]
    return Spans(
        keys_K=None if queries == keys else on_device(list(chain.from_iterable(path for _, path in runs))),
        cu_queries=on_device([0, *accumulate(queries)], torch.int32),
        cu_keys=on_device([0, *accumulate(keys)], torch.int32),
        longest_query=max(queries),
        longest_key=max(keys),
    )


@dataclass(frozen=True, slots=True)
class Packer:
    """How passes of one model are filled. `trees`: it reads several sequences a row; `spans`: in one row, by those.

    Else no row is wider than `widest`, but for a longer sequence: the model's own width, beyond which attention costs
    more than a sixth of the rest.
    """

    trees: bool
    spans: bool
    context: int
    device: torch.device
    widest: int = 1 << 16

    def pack(self, pairs: Sequence[Pair]) -> Packed:
        """Prompts are cut to the context. Raises InvalidInput for an answer as long as that."""
        fitted = [fit(pair, self.context) for pair in pairs]
        return pack(fitted, width=self._width(fitted), pad_id=0, device=self.device, spans=self.spans)

    def passes(self, items: Sequence[Sequence[Pair]], tokens: int) -> list[list[int]]:
        """Indices of `items` in passes of at most `tokens`, one item at least, in the order that saves the most."""

        def key(index: int) -> tuple[int, ...]:
            prompt, answer = max(items[index], key=length)
            return (*prompt, *answer) if self.trees else (length((prompt, answer)),)

        order = sorted(range(len(items)), key=lambda index: (key(index), index))
        return [[order[at] for at in group] for group in self.cut([items[index] for index in order], tokens)]

    def cut(self, items: Sequence[Sequence[Pair]], tokens: int, beside: Sequence[Pair] = ()) -> list[list[int]]:
        """Indices of `items`, in their order, in passes of at most `tokens` with the pairs `beside` each of them; one
        item at least."""
        groups: list[list[int]] = []
        alone, begin = _Pass().holding(beside, self), 0
        while begin < len(items):
            pass_, end = alone.holding(items[begin], self), begin + 1
            while end < len(items) and (grown := pass_.holding(items[end], self)).tokens <= tokens:
                pass_, end = grown, end + 1
            while end > begin + 1 and self._in_rows([*beside, *chain.from_iterable(items[begin:end])]) > tokens:
                end = begin + (end - begin + 1) // 2
            groups.append(list(range(begin, end)))
            begin = end
        return groups

    def _width(self, fitted: Sequence[Pair]) -> int | None:
        """That of the rows of a pass of these pairs, as `pack` takes it."""
        if self.spans or not self.trees:
            return None if self.spans else 0
        longest = max(map(length, fitted))
        return max(longest, min(ROW_WIDTH * longest, self.widest))

    def _in_rows(self, pairs: Sequence[Pair]) -> int:
        """Tokens of a pass where several rows are padded, and begin with a prompt again; else 0: `_Pass` knows."""
        if self.spans or not self.trees:
            return 0
        fitted = [fit(pair, self.context) for pair in pairs]
        rows, _ = _rows(fitted, self._width(fitted))
        return len(rows) * max(len(row.tokens) for row in rows)


@dataclass(frozen=True, slots=True)
class _Pass:
    """What a pass holds so far: its tokens; with the padding, where each sequence has a row of its own."""

    tokens: int = 0
    rows: int = 0
    widest: int = 0
    last: Sequence[int] = ()

    def holding(self, pairs: Sequence[Pair], packer: Packer) -> "_Pass":
        tokens, widest, last = self.tokens, self.widest, self.last
        for prompt, answer in pairs:
            sequence = (*prompt, *answer)[-packer.context :]
            tokens += len(sequence) - shared(last, sequence)
            widest, last = max(widest, len(sequence)), sequence
        rows = self.rows + len(pairs)
        return _Pass(tokens if packer.trees else rows * widest, rows, widest, last)
