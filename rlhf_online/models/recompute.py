"""Layers whose activations are computed again for the gradient instead of kept (Chen et al. 2016, arXiv 1604.06174).

Of each layer only its input is kept, and a third more is computed. transformers does so for layers in training mode
alone; these models stay in evaluation mode, so that dropout is off: only the layer itself is told that it trains, not
what is in it, and only while gradients are wanted, since a layer that trains forgets its cache, without which nothing
can be sampled. Whether it then still computes the same is tried, once a model.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlhf_online.errors import InvalidInput


def recompute_layers(model: PreTrainedModel, tried: Callable[[], Tensor]) -> None:
    """From now on the layers of `model` keep no activations. `tried()` gives some of its states, with a gradient.

    Raises InvalidInput for a model whose layers cannot be told, or would then drop something out.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    kind = model.config.model_type
    if not layers:
        raise InvalidInput(f"a {kind!r} model has no layers that can be recomputed: leave recompute off")
    before = tried().detach()
    model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})

    def tell(decoder: nn.Module, args: object) -> None:
        for layer in layers:
            layer.training = torch.is_grad_enabled()

    getattr(model, model.base_model_prefix, model).register_forward_pre_hook(tell)
    if not torch.equal(tried().detach(), before):
        raise InvalidInput(
            f"the layers of a {kind!r} model compute something else when they train: leave recompute off"
        )
