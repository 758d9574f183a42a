"""Traces of a withdrawal's way, API → queue → worker → provider, where OTEL_EXPORTER_OTLP_ENDPOINT is set.

The extra `tracing` has what this needs; without the setting nothing of it is imported. What is told: which
address was asked, which task ran, which statement (its text, without values), how long each took. The
standard variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, …) are the SDK's own.
"""

import importlib.util
import os
from typing import Any

from shared.errors import SettingsError
from shared.settings import Settings

PACKAGE = "opentelemetry.exporter.otlp"
NOT_TRACED = "healthz,readyz,metrics"
WITH_QUERY = ("http.target", "http.url", "url.full", "url.query")

_is_on = False


def require(settings: Settings) -> None:
    """See that what the settings ask for is installed. Raises SettingsError."""
    if settings.otel_exporter_otlp_endpoint and not _is_installed():
        raise SettingsError(
            ["OTEL_EXPORTER_OTLP_ENDPOINT: needs the extra `tracing`: pip install 'coin-payouts[tracing]'"]
        )


def start(service: str, settings: Settings) -> None:
    """Trace this process from now on, if the settings say so; once. Raises SettingsError."""
    global _is_on  # noqa: PLW0603  one fact for the whole process
    if _is_on or not settings.otel_exporter_otlp_endpoint:
        return
    require(settings)
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.requests import RequestsInstrumentor
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    # In a thread of its own: a collector that is away costs spans, and no payout waits for it.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
    RequestsInstrumentor().instrument(excluded_urls=settings.otel_exporter_otlp_endpoint)
    _is_on = True


def of_app(app: Any) -> None:
    """Trace the requests to this Flask application. To be called before all else that looks at them."""
    if _is_on:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument_app(app, excluded_urls=NOT_TRACED)  # type: ignore[no-untyped-call]
        app.before_request(_hide_query)


def of_engine(engine: Any) -> None:
    """Trace the statements on this SQLAlchemy engine."""
    if _is_on:
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

        # It says that it knows SQLAlchemy before 2.1; the events that it listens to are the same there.
        SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)


def _hide_query() -> None:
    """A query names a user: it is not told."""
    from opentelemetry import trace

    span = trace.get_current_span()
    for name, value in dict(getattr(span, "attributes", None) or {}).items():
        if name in WITH_QUERY:
            span.set_attribute(name, str(value).partition("?")[0] if name != "url.query" else "")


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:
        return False
