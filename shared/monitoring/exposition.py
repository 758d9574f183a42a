"""The metrics as text: an API returns the sum of its processes and the gauges, a worker its own counts."""

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from shared.monitoring import gauges
from shared.telemetry import metric_files, metrics
from shared.withdrawals.transitions import FAILURES


def initialize() -> None:
    """Initialize the series that alerts use, so that they exist from the first scrape on."""
    metrics.initialize_series(FAILURES)


def api_metrics(accept: str) -> tuple[bytes, str]:
    """The counts of all processes of this API, and the gauges: the text and its content type."""
    registry = CollectorRegistry()
    if (shared := metric_files.directory()) is not None:
        MultiProcessCollector(registry, path=str(shared))  # type: ignore[no-untyped-call]
    else:
        registry.register(metrics.REGISTRY)
    registry.register(gauges.GaugeCollector())
    return _text(registry, accept)


def worker_metrics(accept: str) -> tuple[bytes, str]:
    """The counts and the resource usage of this process: the text and its content type."""
    registry = CollectorRegistry()
    registry.register(metrics.REGISTRY)
    ProcessCollector(registry=registry)
    return _text(registry, accept)


def _text(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
