"""What docs/metrics.md, the alerts and the dashboard name exists in what the code tells, label by label."""

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from shared import gauges, queues
from shared.metrics import REGISTRY
from shared.razorpayx.reasons import POLICIES
from shared.severities import Severity
from shared.states import Reason, Status
from shared.withdrawals import reviewing
from tests.docs.promql import grouped, selectors
from tests.docs.test_documents import anchors

ROOT = Path(__file__).parents[2]
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
AT_THE_START = """
from shared import exposition
exposition.begin()
print(exposition.of_worker("text/plain")[0].decode())
"""
# What Prometheus adds by itself.
OF_PROMETHEUS = {"up": {"job", "instance"}}


def told() -> dict[str, set[str]]:
    """Every metric of the code, as docs name it, with its labels."""
    counted = {metric._name + ("_total" if metric._type == "counter" else ""): set(metric._labelnames)
               for metric in set(REGISTRY._names_to_collectors.values())}  # fmt: skip
    return counted | {f"payouts_{gauge.name}": set(gauge.labels) for gauge in gauges.EVERY}


def samples() -> dict[str, set[str]]:
    """Every name under which Prometheus keeps something, with its labels."""
    names: dict[str, set[str]] = dict(OF_PROMETHEUS)
    for metric in set(REGISTRY._names_to_collectors.values()):
        labels = set(metric._labelnames)
        if metric._type == "histogram":
            names |= {f"{metric._name}_{end}": labels for end in ("sum", "count")}
            names[f"{metric._name}_bucket"] = labels | {"le"}
        else:
            names[f"{metric._name}_total"] = labels
    return names | {f"payouts_{gauge.name}": set(gauge.labels) for gauge in gauges.EVERY}


def test_the_page_lists_every_metric_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(payouts_\w+)` \|([^|]*)\| [^|]+ \|$", PAGE, re.M)
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == told()


def test_names_say_their_unit() -> None:
    for name in told():
        assert re.fullmatch(r"payouts_[a-z_]+", name)
    for metric in set(REGISTRY._names_to_collectors.values()):
        assert metric._type == "counter" or metric._name.endswith("_seconds"), metric._name


def test_every_gauge_that_is_defined_is_listed() -> None:
    defined = {value for value in vars(gauges).values() if isinstance(value, gauges.Gauge)}
    assert defined == set(gauges.EVERY)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_only_what_is_told(expression: str) -> None:
    names = samples()
    asked = selectors(expression)
    assert asked, "asks for nothing"
    known: set[str] = set()
    for name, labels in asked:
        assert name in names, f"{name} is told by nobody"
        assert set(labels) <= names[name] | {"job"}, f"{name} has no label of {set(labels)}"
        known |= names[name]
    assert grouped(expression) <= known


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_words_that_an_expression_asks_for_are_words_of_ours(expression: str) -> None:
    words = {
        "to": set(Status),
        "status": set(Status) | {"5.."},
        "task": set(queues.QUEUE_OF),
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
        "reason": set(Reason) | {"reversed", "resolved", reviewing.REJECTED},
        "queue": set(queues.EVERY_QUEUE),
    }
    for _, labels in selectors(expression):
        for label, value in labels.items():
            assert set(value.split("|")) <= words[label], (label, value)


@pytest.fixture(scope="module")
def at_the_start() -> list[Sample]:
    """What a process tells before anything has happened: a new one, for in this one other tests have been."""
    new = subprocess.run([sys.executable, "-c", AT_THE_START], capture_output=True, text=True, check=True)
    return [sample for family in text_string_to_metric_families(new.stdout) for sample in family.samples]


@pytest.mark.parametrize("rule", [one for one in ALERTS if re.search(r"\b(increase|rate)\(", one["expr"])],
                         ids=lambda rule: rule["alert"])  # fmt: skip
def test_what_an_alert_sees_grow_is_there_at_zero_from_the_start(
    rule: dict[str, Any], at_the_start: list[Sample]
) -> None:
    for name, labels in selectors(rule["expr"], with_negated=False):
        if "5.." in labels.values():
            continue  # any route and any status: PayoutsApiErrors asks for a share of many, not for the first
        for words in product(*(value.split("|") for value in labels.values())):
            wanted = dict(zip(labels, words, strict=True))
            found = [
                one.value for one in at_the_start if one.name == name and wanted.items() <= one.labels.items()
            ]
            assert (found or not labels) and not any(found), f"{name} {wanted}"


def test_every_end_of_a_withdrawal_is_there_at_zero_whoever_tells_it(at_the_start: list[Sample]) -> None:
    ends = {
        (one.labels["to"], one.labels["by"], one.labels["reason"])
        for one in at_the_start
        if one.name == "payouts_withdrawal_moves_total"
    }
    for by in ("reply", "webhook", "poll", "lookup", "reconciliation", "operator"):
        assert ("completed", by, "") in ends
        assert {("failed", by, reason) for reason in (*POLICIES, "reversed", "resolved", "other")} <= ends


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    notes = rule["annotations"]
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert len(notes["summary"]) > 10 and len(notes["what_to_do"]) > 10
    page, _, anchor = notes["runbook"].partition("#")
    assert page == "docs/operators.md" and anchor in ANCHORS
    assert anchor in anchors(ROOT / page), f"{page} has no chapter {anchor}"


def test_a_share_or_a_percentile_needs_a_number_of_cases() -> None:
    """One of one is a hundred percent: at night, and on the first day, each such alert would be false."""
    for rule in ALERTS:
        if "histogram_quantile" in rule["expr"] or re.search(r"\)\s*/\s*sum\(", rule["expr"]):
            assert re.search(r" and sum\(increase\(.*>= \d+$", rule["expr"].strip()), rule["alert"]


def test_every_kind_of_trouble_has_an_alert() -> None:
    assert {rule["annotations"]["runbook"].partition("#")[2] for rule in ALERTS} == ANCHORS
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)


def test_panels_have_a_place_and_a_title_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["title"] for panel in PANELS}) == len({panel["id"] for panel in PANELS}) == len(PANELS)


def test_flowers_table_has_every_task_in_its_queue() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ", PAGE.partition("## Flower")[2], re.M)
    listed = {task: re.findall(r"`(\w+)`", where) for task, where in rows}
    assert set(listed) == set(queues.QUEUE_OF)
    assert all(queues.QUEUE_OF[task] in where for task, where in listed.items())


@pytest.mark.parametrize("wrong", ["sum(payouts_up", "payouts_up $ 1", "whatever(payouts_up)", 'x{a="b"'])
def test_what_is_not_promql_is_no_expression(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        selectors(wrong)
