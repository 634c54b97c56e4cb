"""The span of the engine's work on a request, in OpenTelemetry's words for generative models; no text is in it."""

from rlhf_online import tracing
from services.chat.completions.in_flight import Generation

OPERATIONS = {"chat": "chat", "text": "text_completion"}


def begin_span(generation: Generation) -> tracing.Span:
    """To be ended by `end_span`."""
    operation = OPERATIONS[generation.request.route]
    said = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": generation.model,
        "rlhf.completion_id": generation.completion_id,
    }
    return tracing.start(f"{operation} {generation.model}", said, kind="client")


def end_span(generation: Generation) -> None:
    """Say what came of it."""
    if generation.span.recorded:
        said = {
            "gen_ai.response.model": generation.version,
            "gen_ai.response.finish_reasons": [choice.finish_reason or "abort" for choice in generation.choices],
            "gen_ai.usage.input_tokens": len(generation.prompt_token_ids or ()),
            "gen_ai.usage.output_tokens": generation.tokens,
        }
        generation.span.note(said)
        generation.span.end()
