"""Records the scrapes of a run and lets promtool evaluate the alert rules of deploy/ over them."""

import json
import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.docs.promql import selectors
from tests.support.paths import ROOT
from tests.support.scraping import samples

RULES = ROOT / "deploy/prometheus/alerts.yml"
PROMTOOL = shutil.which("promtool")  # Debian's package `prometheus` has it
Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass
class Watch:
    """What Prometheus would have stored: a value or nothing for each series at each scrape."""

    every_seconds: int
    started: float  # Unix seconds: promtool's time starts at 0
    scrapes: int = 0
    series: dict[Series, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def take(self, texts: dict[tuple[str, str], str | None]) -> None:
        """Store one scrape of each target, by job and instance: its text, or None if it did not answer."""
        for (job, instance), text in texts.items():
            target = {("job", job), ("instance", instance)}
            self.series["up", frozenset(target)][self.scrapes] = float(text is not None)
            for (name, labels), value in samples(text).items() if text else ():
                shifted = value - self.started if name.endswith("_timestamp_seconds") else value
                self.series[name, labels | target][self.scrapes] = shifted
        self.scrapes += 1


def fired(watch: Watch, directory: Path, rules: Path = RULES) -> dict[str, list[str]]:
    """The alerts that fired, with the times from promtool. Raises RuntimeError if promtool fails."""
    rule_list = [rule for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]]
    used_names = {name for rule in rule_list for name, _ in selectors(rule["expr"])}
    alert_tests = [
        {"eval_time": f"{at * watch.every_seconds}s", "alertname": rule["alert"], "exp_alerts": []}
        for rule in rule_list
        for at in range(watch.scrapes)
    ]
    input_series = [
        {
            "series": _selector(series),
            "values": " ".join(_value(values.get(at)) for at in range(watch.scrapes)),
        }
        for series, values in watch.series.items()
        if series[0] in used_names
    ]
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": f"{watch.every_seconds}s",
        "tests": [
            {
                "interval": f"{watch.every_seconds}s",
                "input_series": input_series,
                "alert_rule_test": alert_tests,
            },
        ],
    }
    file = directory / "alerts.test.yml"
    file.write_text(json.dumps(test))  # JSON is YAML
    assert PROMTOOL, "promtool is needed"
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, timeout=300, check=False
    )
    output = done.stdout + done.stderr
    times: dict[str, list[str]] = defaultdict(list)
    for name, at in re.findall(r"alertname: (\w+), time: (\S+),", output):
        times[name].append(at)
    if (done.returncode != 0) != bool(times):
        raise RuntimeError(f"promtool ended with {done.returncode}: {output[-2000:]}")
    return dict(times)


def _selector(series: Series) -> str:
    name, labels = series
    return f"{name}{{{', '.join(f'{label}={json.dumps(value)}' for label, value in sorted(labels))}}}"


def _value(value: float | None) -> str:
    return "_" if value is None else {"inf": "Inf", "-inf": "-Inf", "nan": "NaN"}.get(str(value), repr(value))


def with_a_fault(watch: Watch) -> Watch:
    """The same scrapes with one broken promise. If no alert fires for it, the rules were not evaluated."""
    faulty: dict[Series, dict[int, float]] = defaultdict(dict, watch.series)
    labels: Any = {("promise", "1"), ("job", "payouts-api"), ("instance", "planted")}
    faulty["payouts_check_faults", frozenset(labels)] = dict.fromkeys(range(watch.scrapes), 1.0)
    return Watch(watch.every_seconds, watch.started, watch.scrapes, faulty)
