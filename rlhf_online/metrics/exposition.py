"""A registry as a scrape: the classic text, or OpenMetrics, exemplars included, for a scraper that asks for it."""

from collections.abc import Iterable, Iterator
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import RestrictedRegistry

from rlhf_online.errors import InvalidInput


class _Lean(CollectorRegistry):
    """`registry` without each series' time of creation, which would be a third of a scrape, and nobody reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric

    def restricted_registry(self, names: Iterable[str]) -> RestrictedRegistry:
        """For a scraper that asks for some names alone."""
        return self._registry.restricted_registry(names)


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """What a scraper with that `Accept` header is answered, and its content type."""
    encode, content_type = choose_encoder(_known(accept))
    return encode(_Lean(registry)), content_type


def _known(accept: str) -> str:
    """`accept`, or nothing, which asks for the classic text, where it names a version that is none."""
    try:
        choose_encoder(accept)
    except (TypeError, ValueError):
        return ""
    return accept


def _tolerant(scrape: WSGIApplication) -> WSGIApplication:
    """`scrape`, which never gets to see what it would fail on."""

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return scrape({**environ, "HTTP_ACCEPT": _known(environ.get("HTTP_ACCEPT", ""))}, start)

    return application


def serve(registry: CollectorRegistry, host: str, port: int) -> int:
    """Expose `registry` over HTTP in a thread; the port, chosen by the system for 0. Raises InvalidInput."""
    try:
        server, _ = start_http_server(port, host, registry=_Lean(registry))
    except OSError as error:
        raise InvalidInput(
            f"port {port} on {host} cannot be opened ({error}): stop what uses it, or set metrics_port to another"
        ) from error
    if scrape := server.get_app():
        server.set_app(_tolerant(scrape))
    return server.server_port


def show_version(gauge: Gauge, *version: str) -> None:
    """Make `version` the only child of an info gauge that is 1."""
    gauge.clear()
    if any(version):
        gauge.labels(*version).set(1)
