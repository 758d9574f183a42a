"""Traces of a withdrawal, API → queue → worker → provider, if OTEL_EXPORTER_OTLP_ENDPOINT is set.

Needs the extra `tracing`; without the setting nothing of it is imported. A trace holds the URL paths, the
tasks, the statements (their text, without values), and how long each took. The SDK itself reads its standard
variables (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS, …).
"""

import importlib.util
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from shared.errors import SettingsError
from shared.settings import Settings

PACKAGE = "opentelemetry.exporter.otlp"
UNTRACED_PATHS = "healthz,readyz,metrics"
NOT_TRACED = nullcontext()
URL_ATTRIBUTES = ("http.target", "http.url", "url.full", "url.query")

_is_on = False


def require_extra(settings: Settings) -> None:
    """Check that the extra is installed if the settings need it. Raises SettingsError."""
    if settings.otel_exporter_otlp_endpoint and not _is_installed():
        raise SettingsError(
            ["OTEL_EXPORTER_OTLP_ENDPOINT: needs the extra `tracing`: pip install 'coin-payouts[tracing]'"]
        )


def start(service: str, settings: Settings) -> None:
    """Trace this process from now on, if the settings say so. Raises SettingsError."""
    global _is_on  # noqa: PLW0603  one fact for the whole process
    if _is_on or not settings.otel_exporter_otlp_endpoint:
        return
    require_extra(settings)
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    # Exports in its own thread: a collector that is away costs spans and delays no payout.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
    URLLib3Instrumentor().instrument(excluded_urls=settings.otel_exporter_otlp_endpoint)
    _is_on = True


def instrument_app(app: Any) -> None:
    """Trace the requests to this Flask application. Call it before anything else that hooks into them."""
    if _is_on:
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        FlaskInstrumentor().instrument_app(app, excluded_urls=UNTRACED_PATHS)  # type: ignore[no-untyped-call]
        app.before_request(_hide_query)


def instrument_engine(engine: Any) -> None:
    """Trace the statements on this SQLAlchemy engine."""
    if _is_on:
        from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

        # It declares support for SQLAlchemy before 2.1 only; the events it uses are the same in 2.1.
        SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)


def statement(sql: str) -> AbstractContextManager[Any]:
    """Return the span of a statement that does not go through SQLAlchemy."""
    if not _is_on:
        return NOT_TRACED
    from opentelemetry import trace

    attributes = {"db.system": "postgresql", "db.statement": sql}
    return trace.get_tracer(__name__).start_as_current_span(
        sql.split(maxsplit=1)[0], kind=trace.SpanKind.CLIENT, attributes=attributes
    )


def _hide_query() -> None:
    """Remove query strings from the span: they name users."""
    from opentelemetry import trace

    span = trace.get_current_span()
    for name, value in dict(getattr(span, "attributes", None) or {}).items():
        if name in URL_ATTRIBUTES:
            span.set_attribute(name, str(value).partition("?")[0] if name != "url.query" else "")


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(PACKAGE) is not None
    except ModuleNotFoundError:
        return False
