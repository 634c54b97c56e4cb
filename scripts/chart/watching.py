"""What operators see of a release, and how it is tried: metrics, alerts, dashboards, traces, `helm test`."""

from typing import Annotated, Literal

from pydantic import Field

from scripts.chart.kinds import Count, Texts, Value


class PodMonitors(Value):
    enabled: bool = Field(default=False, description="PodMonitors of the Prometheus operator.")
    interval: str = Field(default="15s", pattern=r"^[0-9]+(ms|s|m)$", description="Between two scrapes.")
    labels: Texts = Field(default={}, description="Labels by which Prometheus selects them, {release: …}.")
    nativeHistograms: bool = Field(
        default=False,
        description="Have Prometheus (3.4 or later, its operator 0.82) keep each histogram as a native one as well, a "
        "series in place of one a bucket; the classic ones stay, as rules and dashboards ask for them.",
    )


class Rules(Value):
    enabled: bool = Field(default=False, description="The alert rules, as PrometheusRules.")
    labels: Texts = Field(default={}, description="Labels by which Prometheus selects them.")
    runbooksUrl: str = Field(default="docs/runbooks", description="What the alerts' links to runbooks begin with.")


class Dashboards(Value):
    enabled: bool = Field(default=False, description="The dashboards, as ConfigMaps for Grafana's sidecar.")
    labels: Texts = Field(default={"grafana_dashboard": "1"}, description="Labels by which it finds them.")
    annotations: Texts = Field(
        default={"grafana_folder": "rlhf-online"}, description="Annotations, such as the folder."
    )


class Monitoring(Value):
    podMonitors: PodMonitors = PodMonitors()
    rules: Rules = Rules()
    dashboards: Dashboards = Dashboards()


class Tracing(Value):
    endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^\s/]+(/[^\s]*)?)?$",
        description="Where all services send spans, OTLP over HTTP: 'http://collector:4318'; empty: nowhere.",
    )


class Tests(Value):
    votes: Annotated[int, Field(gt=0)] = Field(default=1, description="Answers that `helm test` asks for and votes on.")
    until: Literal["joined", "trained", "live"] = Field(
        default="joined",
        description="What must become of one of its votes: joined with its answer by the trainer; trained, which takes "
        "as many votes as `trainer.settings.min_votes` (cold_votes at first); live.",
    )
    timeoutSeconds: Count = Field(default=300, description="How long it waits for that.")
