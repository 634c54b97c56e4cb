"""A real Prometheus that scrapes the services of a test, and what it answers over its HTTP API."""

import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.ops_tools import tool
from tests.support.ports import reserve
from tests.support.waiting import until

START_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is scraped: `job` is the component, as the chart names it; `labels` are set on each of its series."""

    job: str
    address: str
    path: str = "/metrics"
    scheme: str = "http"
    """With "https" any certificate will do."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of an answer: its labels, and (seconds since 1970, value) as far as the value is a finite number."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


class PromQLError(Exception):
    """Prometheus refused the query; the message is its own."""


class Prometheus:
    """One server, its data in `folder`. `rules` are rule files that it reads as they are."""

    def __init__(
        self, folder: Path, targets: Sequence[Target] = (), *, every_s: float = 1.0, rules: Sequence[Path] = ()
    ) -> None:
        every = f"{round(every_s * 1000)}ms"
        config = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {
                    "job_name": target.job,
                    "metrics_path": target.path,
                    "scheme": target.scheme,
                    "tls_config": {"insecure_skip_verify": True},
                    "static_configs": [{"targets": [target.address], "labels": dict(target.labels)}],
                }
                for target in targets
            ],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        port = reserve()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "prometheus.log"
        self._client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=warn",
                ],
                stdout=log,
                stderr=log,
            )
        until(self._ready, START_S, lambda: f"Prometheus\n{self.log.read_text()[-2000:]}")

    def _ready(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def range(self, promql: str, start: float, end: float, step_s: float) -> list[Series]:
        """The series of `promql` from `start` to `end` (seconds since 1970). Raises PromQLError."""
        given = {"query": promql, "start": start, "end": end, "step": step_s}
        return [_series(item["metric"], item["values"]) for item in self.ask("query_range", given)["result"]]

    def instant(self, promql: str, at: float | None = None) -> list[Series]:
        """The values of `promql` at that time, now by default. Raises PromQLError."""
        given = {"query": promql} | ({} if at is None else {"time": at})
        return [_series(item["metric"], [item["value"]]) for item in self.ask("query", given)["result"]]

    def ask(self, what: str, given: Mapping[str, Any]) -> Any:
        """The data of an answer of `/api/v1/{what}`. Raises PromQLError."""
        reply = self._client.post(f"/api/v1/{what}", data=dict(given)) if given else self._client.get(f"/api/v1/{what}")
        answer = reply.json()
        if answer["status"] != "success":
            raise PromQLError(f"{answer['error']}: {given.get('query', what)}")
        return answer["data"]


def _series(labels: dict[str, str], values: Sequence[tuple[float, str]]) -> Series:
    points = ((float(at), float(value)) for at, value in values)
    return Series(labels, tuple(point for point in points if math.isfinite(point[1])))
