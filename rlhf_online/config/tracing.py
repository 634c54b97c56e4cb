"""Settings of traces (OpenTelemetry): where they are sent, and of the chat service how many."""

from pydantic import Field

from rlhf_online.config.base import Section


class TracingSettings(Section):
    """`[tracing]` of a service."""

    endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^\s/?#]+(/[^\s?#]*)?)?$",
        description="Where spans are sent, OTLP over HTTP, 'http://collector:4318'; empty: where "
        "OTEL_EXPORTER_OTLP_ENDPOINT says, and nowhere without it. Needs the extra 'tracing'.",
    )


class ChatTracingSettings(TracingSettings):
    """`[tracing]` of the chat service, where most traces begin."""

    sample: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the requests that are traced, of those that come without a `traceparent`: that says it "
        "for its own. An answer that is traced takes up to half as much again of the service's CPU.",
    )
