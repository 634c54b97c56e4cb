"""Attention in rows that are prefix trees (`packing`), for transformers' models.

It is registered with transformers as an attention function of its own, so that the model's layers call it as they
would call flash attention: with the sliding window of a layer that has one. Without a tree it is transformers' SDPA,
for sampling.

    one row, on a GPU, in bfloat16    `torch.nn.attention.varlen`: no mask, no padding; a branch reads the keys above it
    else                              SDPA with a mask for each row

Whether a model computes with it what it computes of each sequence alone is not believed but tried, once a model.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from rlhf_online.models.compiled import compile_layers
from rlhf_online.models.lower_layers import LowerLayers
from rlhf_online.models.packing import Packed, Packer, Spans, Tree, pack
from rlhf_online.models.precision import computing
from rlhf_online.models.recompute import recompute_layers
from rlhf_online.models.tokens import Pair

NAME = "prefix_trees"
LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers whose attention is told by the order of tokens and a window."""
UNKNOWN = ("softcap", "s_aux", "position_bias")
"""What some models ask of attention besides, and this does not do."""
TRIED: list[Pair] = [((0,), (1, 0, 1)), ((0, 1), (1,)), ((0, 1), (0, 1, 1)), ((1, 1), (0, 1))]


def adopt(model: PreTrainedModel) -> bool:
    """Have `model` compute its attention here. False, and all is as before, if it does not compute of sequences in a
    tree what it computes of each alone: one whose layers remember more than they attend to, or attend otherwise."""
    if not model._can_set_attn_implementation():  # noqa: SLF001
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = getattr(model.config, "_attn_implementation", None)
    model.set_attn_implementation(NAME)
    if _told_by_window(model) and _is_exact(model):
        return True
    model.set_attn_implementation(before or "eager")
    return False


def packer(model: PreTrainedModel, context: int, dtype: torch.dtype = torch.float32) -> Packer:
    """How passes of `model`, whose layers compute in `dtype`, are filled; from now on it computes its attention here,
    if it can."""
    trees = adopt(model)
    spans = trees and _takes_spans(model, dtype)
    widest = int(model.config.get_text_config().hidden_size)
    return Packer(trees=trees, spans=spans, context=context, device=model.device, widest=widest)


def compiled(model: PreTrainedModel, packer: Packer, dtype: torch.dtype) -> None:
    """Compile the layers of `model`, filled by `packer`, where they read spans (`compiled`)."""

    def tried() -> Tensor:
        with torch.enable_grad(), computing(model.device, dtype):
            return _tried_Nd(model, None)

    if packer.spans:
        compile_layers(model, int(model.config.get_text_config().hidden_size), tried)


def recomputed(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Have the layers of `model`, which compute in `dtype`, keep no activations (`recompute`). Raises InvalidInput."""

    def tried() -> Tensor:
        with torch.enable_grad(), computing(model.device, dtype):
            return _tried_Nd(model, 0)

    recompute_layers(model, tried)


def lower_layers(model: PreTrainedModel, packer: Packer, dtype: torch.dtype) -> LowerLayers:
    """The layers of `model`, filled by `packer`, below all that learns; none where they cannot be told or spared."""
    decoder = getattr(model, model.base_model_prefix, model)
    lower = LowerLayers.below(decoder)
    if not lower.count:
        return lower
    packed = packer.pack(TRIED)
    try:
        with torch.no_grad(), computing(model.device, dtype), lower.kept():
            whole_Xd, spared_Xd = (hidden_states(decoder, packed, lower) for _ in range(2))
    except (TypeError, ValueError, RuntimeError, AttributeError):  # from within the model: of what it is not made for
        return LowerLayers.none(decoder)
    whole_Nd, spared_Nd = whole_Xd[packed.before_N], spared_Xd[packed.before_N]
    return lower if torch.allclose(whole_Nd, spared_Nd, rtol=1e-4, atol=1e-4) else LowerLayers.none(decoder)


def hidden_states(decoder: nn.Module, packed: Packed, lower: LowerLayers | None = None) -> Tensor:
    """The last hidden states of all rows, one after another, (R·T, d); `lower` are layers of the decoder that need not
    compute again what they did."""
    given: dict[str, Any] = {}
    if packed.tree is not None:
        # A mask of four dimensions is handed on as it is: one that nobody reads keeps transformers from making its own.
        unread = torch.empty(1, 1, 1, 1, dtype=torch.bool, device=packed.tokens_RT.device)
        given = {"position_ids": packed.tree.position_RT, "attention_mask": unread, "tree": packed.tree}
    with nullcontext() if lower is None else lower.spared(packed):
        found = decoder(input_ids=packed.tokens_RT, use_cache=False, **given)
    return found.last_hidden_state.flatten(0, 1)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Tree | None = None,
    **asked: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (R, heads, T, width) each, the result (R, T, heads, width).

    Raises NotImplementedError for what some models ask besides.
    """
    if tree is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **asked)
    if unknown := [name for name in UNKNOWN if asked.get(name) is not None]:
        raise NotImplementedError(f"attention in trees knows no {unknown[0]}")
    window: int | None = asked.get("sliding_window")
    # Under autocast rotary embeddings promote queries and keys to float32, and values are not.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if tree.spans is None:
        dropout, scaling = asked.get("dropout", 0.0), asked.get("scaling")
        return sdpa_attention_forward(module, query, key, value, tree.seen(window), dropout=dropout, scaling=scaling)
    spans = tree.spans
    grouped: dict[str, Any] = {}
    if query.shape[1] != key.shape[1]:
        grouped["enable_gqa"] = True  # torch 2.11 knows no such word
    found_THd = varlen_attn(
        query.squeeze(0).transpose(0, 1),
        _seen_KHd(key, spans),
        _seen_KHd(value, spans),
        spans.cu_queries,
        spans.cu_keys,
        spans.longest_query,
        spans.longest_key,
        scale=asked.get("scaling"),
        window_size=(-1 if window is None else window - 1, 0),
        **grouped,
    )
    assert isinstance(found_THd, Tensor)
    return found_THd.unsqueeze(0), None


def _seen_KHd(tensor: Tensor, spans: Spans) -> Tensor:
    """What each span sees of a row's (1, heads, T, width), one after another. The gradients of a token that many see
    add up in float32: in bfloat16 a GPU would lose those that are small beside their sum."""
    tensor_THd = tensor.squeeze(0).transpose(0, 1)
    if spans.keys_K is None:
        return tensor_THd
    wide = torch.promote_types(tensor.dtype, torch.float32)
    return tensor_THd.to(wide).index_select(0, spans.keys_K).to(tensor.dtype)


def _told_by_window(model: PreTrainedModel) -> bool:
    """Whether what its layers attend to is told by order and window: no chunks, and the window is handed to attention
    functions, as flash attention needs it too."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    windowed = getattr(config, "sliding_window", None) is not None
    return kinds <= LAYERS and (not windowed or getattr(model, "_supports_flash_attn", False))


def _is_exact(model: PreTrainedModel) -> bool:
    try:
        with torch.no_grad():
            return torch.allclose(_tried_Nd(model, 0), _tried_Nd(model, 16), rtol=1e-3, atol=1e-3)
    except (TypeError, ValueError, RuntimeError):  # from within the model: of what it is not made for
        return False


def _takes_spans(model: PreTrainedModel, dtype: torch.dtype) -> bool:
    """Whether its device has a kernel for its heads: a GPU's computes in half precision."""
    if model.device.type != "cuda":
        return False
    try:
        with torch.no_grad(), computing(model.device, dtype):
            return torch.allclose(_tried_Nd(model, 16), _tried_Nd(model, None), rtol=0.1, atol=0.1)
    except (RuntimeError, TypeError):
        return False


def _tried_Nd(model: PreTrainedModel, width: int | None) -> Tensor:
    """States of the answers in TRIED, in rows of `width`."""
    packed = pack(TRIED, width=width, pad_id=0, device=model.device, spans=width is None)
    return hidden_states(getattr(model, model.base_model_prefix, model), packed)[packed.before_N]
