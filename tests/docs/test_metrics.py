"""Every metric and label in docs/metrics.md, the alerts and the dashboard exists in the code."""

import json
import re
import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from shared.monitoring import gauges
from shared.people.severities import Severity
from shared.providers.failures import POLICIES
from shared.queues import messages
from shared.queues.names import EVERY_QUEUE
from shared.states import Reason, Status
from shared.telemetry.metrics import REGISTRY
from shared.withdrawals import review
from tests.docs.promql import grouped, selectors
from tests.docs.test_documents import anchors
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "metrics.md").read_text()
ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())["panels"]
EXPRESSIONS = [rule["expr"] for rule in ALERTS] + [
    target["expr"] for panel in PANELS for target in panel["targets"]
]
ANCHORS = {
    "stuck-payout",
    "provider-outage",
    "low-balance",
    "reversed-payout",
    "lost-webhook",
    "overdue",
    "promise-broken",
    "exception-record",
    "reconciliation",
    "review",
    "apps-not-told",
    "notifier-behind",
    "mail-failing",
}
NEW_PROCESS = """
from shared.monitoring import exposition
exposition.initialize()
print(exposition.worker_metrics("text/plain")[0].decode())
"""
# Added by Prometheus itself.
PROMETHEUS_METRICS = {"up": {"job", "instance"}}


def exported() -> dict[str, set[str]]:
    """Every metric of the code, by the name in the docs, with its labels."""
    counted = {metric._name + ("_total" if metric._type == "counter" else ""): set(metric._labelnames)
               for metric in set(REGISTRY._names_to_collectors.values())}  # fmt: skip
    return counted | {f"payouts_{gauge.name}": set(gauge.labels) for gauge in gauges.ALL_GAUGES}


def samples() -> dict[str, set[str]]:
    """Every series name in Prometheus, with its labels."""
    names: dict[str, set[str]] = dict(PROMETHEUS_METRICS)
    for metric in set(REGISTRY._names_to_collectors.values()):
        labels = set(metric._labelnames)
        if metric._type == "histogram":
            names |= {f"{metric._name}_{end}": labels for end in ("sum", "count")}
            names[f"{metric._name}_bucket"] = labels | {"le"}
        else:
            names[f"{metric._name}_total"] = labels
    return names | {f"payouts_{gauge.name}": set(gauge.labels) for gauge in gauges.ALL_GAUGES}


def test_the_page_lists_every_metric_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(payouts_\w+)` \|([^|]*)\| [^|]+ \|$", PAGE, re.M)
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == exported()


def test_names_end_with_their_unit() -> None:
    for name in exported():
        assert re.fullmatch(r"payouts_[a-z_]+", name)
    for metric in set(REGISTRY._names_to_collectors.values()):
        assert metric._type == "counter" or metric._name.endswith("_seconds"), metric._name


def test_every_defined_gauge_is_listed() -> None:
    defined = {value for value in vars(gauges).values() if isinstance(value, gauges.Gauge)}
    assert defined == set(gauges.ALL_GAUGES)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_uses_only_exported_metrics_and_labels(expression: str) -> None:
    names = samples()
    selected = selectors(expression)
    assert selected, "selects nothing"
    known_labels: set[str] = set()
    for name, labels in selected:
        assert name in names, f"{name} is not exported"
        assert set(labels) <= names[name] | {"job"}, f"{name} has no label of {set(labels)}"
        known_labels |= names[name]
    assert grouped(expression) <= known_labels


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_uses_only_label_values_that_exist(expression: str) -> None:
    known_values = {
        "to": set(Status),
        "status": set(Status) | {"5.."},
        "task": set(messages.QUEUE_OF),
        "service": {"database", "broker"},
        "job": {"payouts-api", "payouts-worker"},
        "step": {"send", "prepare", "lookup", "poll"},
        "answer": {"accepted", "refused", "throttled", "unknown", "found", "prepared"},
        "operation": {"send"},
        "outcome": {"bad_signature"},
        "by": {"webhook", "poll", "lookup"},
        "kind": {
            "overdue",
            "paused",
            "low_balance",
            "webhooks_silent",
            "promise_broken",
            "mail",
            "not_reconciled",
        },
        "severity": set(Severity),
        "reason": set(Reason) | {"reversed", "resolved", review.REJECTED},
        "queue": set(EVERY_QUEUE),
    }
    for _, labels in selectors(expression):
        for label, value in labels.items():
            assert set(value.split("|")) <= known_values[label], (label, value)


@pytest.fixture(scope="module")
def new_process_samples() -> list[Sample]:
    """The samples of a new process before anything happens; other tests have already counted in this one."""
    process = subprocess.run([sys.executable, "-c", NEW_PROCESS], capture_output=True, text=True, check=True)
    return [sample for family in text_string_to_metric_families(process.stdout) for sample in family.samples]


@pytest.mark.parametrize("rule", [rule for rule in ALERTS if re.search(r"\b(increase|rate)\(", rule["expr"])],
                         ids=lambda rule: rule["alert"])  # fmt: skip
def test_counters_used_by_alerts_start_at_zero(
    rule: dict[str, Any], new_process_samples: list[Sample]
) -> None:
    for name, labels in selectors(rule["expr"], with_negated=False):
        if "5.." in labels.values():
            continue  # any route and status: PayoutsApiErrors needs a share of many, not the first one
        for values_of_labels in product(*(value.split("|") for value in labels.values())):
            expected = dict(zip(labels, values_of_labels, strict=True))
            values = [
                sample.value
                for sample in new_process_samples
                if sample.name == name and expected.items() <= sample.labels.items()
            ]
            assert (values or not labels) and not any(values), f"{name} {expected}"


def test_every_final_state_of_a_withdrawal_starts_at_zero(new_process_samples: list[Sample]) -> None:
    ends = {
        (sample.labels["to"], sample.labels["by"], sample.labels["reason"])
        for sample in new_process_samples
        if sample.name == "payouts_withdrawal_moves_total"
    }
    for by in ("reply", "webhook", "poll", "lookup", "reconciliation", "operator"):
        assert ("completed", by, "") in ends
        assert {("failed", by, reason) for reason in (*POLICIES, "reversed", "resolved", "other")} <= ends


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert len(notes["summary"]) > 10 and len(notes["what_to_do"]) > 10
    page, _, anchor = notes["runbook"].partition("#")
    assert page == "docs/operators.md" and anchor in ANCHORS
    assert anchor in anchors(ROOT / page), f"{page} has no chapter {anchor}"


def test_a_share_or_a_percentile_needs_a_minimum_count() -> None:
    """One of one is a hundred percent: at night and on the first day such an alert would be false."""
    for rule in ALERTS:
        if "histogram_quantile" in rule["expr"] or re.search(r"\)\s*/\s*sum\(", rule["expr"]):
            assert re.search(r" and sum\(increase\(.*>= \d+$", rule["expr"].strip()), rule["alert"]


def test_every_runbook_chapter_has_an_alert() -> None:
    assert {rule["annotations"]["runbook"].partition("#")[2] for rule in ALERTS} == ANCHORS
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)


def test_panels_do_not_overlap_and_have_unique_titles() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["title"] for panel in PANELS}) == len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_the_flower_table_lists_every_task_with_its_queue() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ", PAGE.partition("## Flower")[2], re.M)
    listed = {task: re.findall(r"`(\w+)`", where) for task, where in rows}
    assert set(listed) == set(messages.QUEUE_OF)
    assert all(messages.QUEUE_OF[task] in where for task, where in listed.items())


@pytest.mark.parametrize("wrong", ["sum(payouts_up", "payouts_up $ 1", "whatever(payouts_up)", 'x{a="b"'])
def test_invalid_promql_is_rejected(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        selectors(wrong)
