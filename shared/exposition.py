"""The metrics as text: the API tells the sum of its processes and the books, a worker tells itself."""

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from shared import gauges, metric_files, metrics
from shared.withdrawals.journey import FAILURES


def begin() -> None:
    """At the start of a process that is asked: what alerts look at is there from the first scrape on."""
    metrics.begin(FAILURES)


def of_api(accept: str) -> tuple[bytes, str]:
    """What all processes of this API counted, and what the books say now: the text and its content type."""
    registry = CollectorRegistry()
    if (shared := metric_files.directory()) is not None:
        MultiProcessCollector(registry, path=str(shared))  # type: ignore[no-untyped-call]
    else:
        registry.register(metrics.REGISTRY)
    registry.register(gauges.Gauges())
    return _text(registry, accept)


def of_worker(accept: str) -> tuple[bytes, str]:
    """What this process counted, and what it costs: the text and its content type."""
    registry = CollectorRegistry()
    registry.register(metrics.REGISTRY)
    ProcessCollector(registry=registry)
    return _text(registry, accept)


def _text(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
