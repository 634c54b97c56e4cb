"""What the models can read. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

KEPT_BYTES = 1 << 30
"""Of the states that layers below an adapter keep in an update (`lower_layers`)."""


def activation_bytes(layers: int, width: int, inner: int, item: int = 4, *, recompute: bool = False) -> int:
    """What a forward pass keeps of a token for the gradient, where products are of types of `item` bytes; with
    `recompute` the inputs of all layers, and of one layer all.

    As counted of Llama's layers, whose norms and residual stream are float32 in any type; other kinds differ little.
    """
    layer = 4 * item * inner + (56 + 7 * item) * width // 2
    return 4 * width * layers + layer if recompute else layers * layer


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """Token ids lie in [0, `vocabulary`); `context` is how many tokens of prompt and answer together fit."""

    vocabulary: int
    context: int

    def both(self, other: "ModelLimits") -> "ModelLimits":
        """What two models can read."""
        return ModelLimits(vocabulary=min(self.vocabulary, other.vocabulary), context=min(self.context, other.context))

    def unreadable(self, prompt: Sequence[int], answer: Sequence[int]) -> str:
        """Why the pair cannot be read: "empty", "vocabulary" or "context"; "" if it can.

        A prompt may lose its oldest tokens to the context, an answer must leave room for one token of its prompt.
        """
        if not prompt or not answer:
            return "empty"
        if not all(0 <= token < self.vocabulary for token in (*prompt, *answer)):
            return "vocabulary"
        return "context" if len(answer) >= self.context else ""
