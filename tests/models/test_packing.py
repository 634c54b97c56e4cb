"""Packing: nothing is lost, what is alike at the beginning stands once, and passes are filled up to their budget."""

import random
from dataclasses import replace

import pytest
import torch

from rlhf_online.errors import InvalidInput
from rlhf_online.models.packing import Packed, Packer, Tree, pack, shared
from rlhf_online.models.tokens import Pair

P, Q, R, A, B, C, D = range(1, 8)
THREE: list[Pair] = [((P, Q), (A, B)), ((P, Q), (A, C)), ((R,), (D,))]
CPU = torch.device("cpu")


def _pairs(prompts: int = 15, answers: int = 4) -> list[Pair]:
    """Answers to prompts of which some begin alike."""
    rng = random.Random(0)

    def ids(most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, 78) for _ in range(rng.randint(1, most)))

    heads = [ids(12) for _ in range(3)]
    return [(prompt, ids(9)) for prompt in (rng.choice(heads) + ids(6) for _ in range(prompts)) for _ in range(answers)]


def _tree(packed: Packed) -> Tree:
    assert packed.tree is not None
    return packed.tree


def test_the_layout_by_hand():
    packed = pack(THREE, width=8, pad_id=0)
    assert packed.tokens_RT.tolist() == [[P, Q, A, B, C, R, D]]
    assert _tree(packed).position_RT.tolist() == [[0, 1, 2, 3, 3, 0, 1]]
    assert _tree(packed).until_RT.tolist() == [[5, 5, 5, 4, 5, 7, 7]]
    assert packed.at_BA.tolist() == [[2, 3], [2, 4], [6, 6]] and packed.mask_BA.tolist()[2] == [True, False]
    assert packed.before_N.tolist() == [1, 2, 1, 2, 5] and packed.answer_N.tolist() == [A, B, A, C, D]
    assert packed.last_B.tolist() == [3, 4, 6]
    assert packed.by_answer(torch.arange(1.0, 6.0)).tolist() == [[1, 2], [3, 4], [5, 0]]
    assert packed.by_token(torch.tensor([7, 8, 9])).tolist() == [7, 7, 8, 8, 9]


def test_rows_are_no_wider_than_asked_for_and_right_padded():
    packed = pack(THREE, width=4, pad_id=0)
    assert packed.tokens_RT.tolist() == [[P, Q, A, B], [P, Q, A, C], [R, D, 0, 0]]
    assert packed.last_B.tolist() == [3, 7, 9]
    assert _tree(packed).until_RT[2].tolist() == [2, 2, 4, 4], "nothing is seen by the padding, which sees itself"
    assert _tree(packed).position_RT[2].tolist() == [0, 1, 0, 0], "a model may know no more places than a sequence has"
    alone = pack(THREE, width=0, pad_id=0)
    assert alone.tree is None and torch.equal(alone.tokens_RT, packed.tokens_RT)


def test_an_empty_answer_is_read_at_the_prompts_end():
    for width in (0, 16):
        packed = pack([((5, 6), ()), ((5, 6), (7,))], width=width, pad_id=0)
        assert packed.tokens_RT.flatten()[packed.last_B].tolist() == [6, 7]
        assert packed.mask_BA.tolist() == [[False], [True]] and packed.answer_N.tolist() == [7]


@pytest.mark.parametrize("width", [0, 40, None])
def test_every_token_is_found_where_the_layout_says_and_sees_its_own_sequence(width: int | None):
    pairs = _pairs()
    packed = pack(pairs, width=width, pad_id=0)
    tokens_X = packed.tokens_RT.flatten()
    assert tokens_X[packed.at_BA][packed.mask_BA].tolist() == packed.answer_N.tolist()
    assert packed.answer_N.tolist() == [token for _, answer in pairs for token in answer]
    if packed.tree is None:
        return
    seen_RTT = packed.tree.seen()[:, 0]
    longest = packed.tokens_RT.shape[1]
    for (prompt, answer), last in zip(pairs, packed.last_B.tolist(), strict=True):
        row, column = divmod(last, longest)
        assert packed.tokens_RT[row][seen_RTT[row, column]].tolist() == [*prompt, *answer]
        assert packed.tree.position_RT[row][seen_RTT[row, column]].tolist() == list(range(len(prompt) + len(answer)))


def test_what_is_alike_at_the_beginning_stands_once():
    pairs = _pairs()
    apart = sum(len(prompt) + len(answer) for prompt, answer in pairs)
    prompts = {tuple(prompt) for prompt, _ in pairs}
    once = sum(map(len, prompts)) + sum(len(answer) for _, answer in pairs)
    assert pack(pairs, width=None, pad_id=0).tokens_RT.numel() < once < 0.7 * apart
    assert (
        pack([*pairs, *pairs], width=None, pad_id=0).tokens_RT.numel()
        == pack(pairs, width=None, pad_id=0).tokens_RT.numel()
    ), "the same answer twice, too"


def test_a_window_hides_what_is_further_back():
    seen_TT = _tree(pack(THREE, width=8, pad_id=0)).seen(2)[0, 0]
    assert seen_TT[4].tolist() == [False, False, True, False, True, False, False], "C sees A and itself"


def test_spans_say_of_each_run_of_new_tokens_what_it_sees():
    spans = _tree(pack(THREE, width=None, pad_id=0, spans=True)).spans
    assert spans is not None and spans.keys_K is not None
    assert spans.cu_queries.tolist() == [0, 4, 5, 7] and spans.cu_keys.tolist() == [0, 4, 8, 10]
    assert spans.keys_K.tolist() == [0, 1, 2, 3, 0, 1, 2, 4, 5, 6]
    assert (spans.longest_query, spans.longest_key) == (4, 4)


def test_shared_beginnings():
    assert shared((), (1,)) == 0 and shared((1, 2), (1, 2)) == 2 and shared((1, 2), (1, 2, 3)) == 2
    assert shared((1, 2, 3, 4, 5), (1, 2, 9, 4, 5)) == 2 and shared((7, 2), (8, 2)) == 0


def _packer(*, trees: bool = True) -> Packer:
    return Packer(trees=trees, spans=False, context=16, device=CPU)


def test_prompts_are_cut_to_the_context_and_answers_never():
    packed = _packer().pack([((1,) * 30 + (2,), (3, 4))])
    assert packed.tokens_RT.tolist() == [[1] * 13 + [2, 3, 4]]
    with pytest.raises(InvalidInput, match="does not fit"):
        _packer().pack([((1,), (3,) * 16)])


def test_rows_are_no_wider_than_pays_where_attention_is_dense():
    pairs: list[Pair] = [((prompt, 2, 3, 4, 5), (6, 7, 8)) for prompt in range(10, 18)]
    widths = [replace(_packer(), widest=widest).pack(pairs).tokens_RT.shape[1] for widest in (1, 16, 1000)]
    assert widths == [8, 16, 32]


@pytest.mark.parametrize(("trees", "widest"), [(True, 1 << 16), (True, 18), (False, 1)])
def test_passes_stay_below_the_budget_and_hold_everything_once(trees: bool, widest: int):
    """With rows that hold little more than one sequence, too: each begins with the prompt again, and is padded."""
    packer, items = replace(_packer(trees=trees), widest=widest), [[pair] for pair in _pairs()]
    passes = packer.passes(items, 60)
    assert sorted(index for group in passes for index in group) == list(range(60))
    sizes = [packer.pack([items[index][0] for index in group]).tokens_RT for group in passes]
    assert len(passes) > 4
    assert max(tokens_RT.numel() for tokens_RT in sizes) <= 60


def test_a_prompt_counts_once_in_a_pass_and_the_padding_where_there_is_some():
    items: list[list[Pair]] = [[((1, 2, 3), (4,))], [((1, 2, 3), (5, 6))], [((1, 2, 3), (7,))]]
    assert _packer().cut(items, 7) == [[0, 1, 2]] and _packer().cut(items, 6) == [[0, 1], [2]]
    assert _packer(trees=False).cut(items, 10) == [[0, 1], [2]] and _packer(trees=False).cut(items, 15) == [[0, 1, 2]]


def test_what_stands_beside_each_pass_counts_in_each_and_one_item_goes_in_any_case():
    items: list[list[Pair]] = [[((1,), (2,))], [((3,), (4,))], [((5,), (6,))]]
    assert _packer().cut(items, 6, [((7,), (8,))]) == [[0, 1], [2]]
    assert _packer().cut(items, 1) == [[0], [1], [2]] and _packer().cut([], 1) == []
    assert _packer(trees=False).cut(items, 6, [((7,), (8,))]) == [[0, 1], [2]]


def test_answers_to_one_prompt_go_into_one_pass():
    pairs = _pairs(prompts=6)
    random.Random(1).shuffle(pairs)
    passes = _packer().passes([[pair] for pair in pairs], 100)
    parted = sum(
        len({number for number, group in enumerate(passes) for index in group if pairs[index][0] == prompt}) - 1
        for prompt in {tuple(prompt) for prompt, _ in pairs}
    )
    assert parted < len(passes), "but for those at a border"


def test_spans_of_sequences_that_begin_with_nothing_alike_see_their_own_tokens():
    spans = _tree(pack([((1,), (2, 3)), ((4,), (5,))], width=None, pad_id=0, spans=True)).spans
    assert spans is not None and spans.keys_K is None
    assert spans.cu_queries.tolist() == spans.cu_keys.tolist() == [0, 3, 5]
