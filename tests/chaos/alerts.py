"""Would an alert have fired? Scrapes of a run, and promtool's word on the rules of deploy/ over them."""

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
from tests.integration.scraping import samples

RULES = Path(__file__).parents[2] / "deploy/prometheus/alerts.yml"
PROMTOOL = shutil.which("promtool")  # Debian's package `prometheus` has it
Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass
class Watch:
    """What a Prometheus would have stored: a value or nothing for each series at each scrape."""

    every_seconds: int
    began: float  # seconds since 1970: promtool's time begins at 0
    scrapes: int = 0
    series: dict[Series, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    def take(self, told: dict[tuple[str, str], str | None]) -> None:
        """One scrape of each target, by its job and instance: the text that it told, None when it did not answer."""
        for (job, instance), words in told.items():
            of_it = {("job", job), ("instance", instance)}
            self.series["up", frozenset(of_it)][self.scrapes] = float(words is not None)
            for (name, labels), value in samples(words).items() if words else ():
                shifted = value - self.began if name.endswith("_timestamp_seconds") else value
                self.series[name, labels | of_it][self.scrapes] = shifted
        self.scrapes += 1


def fired(watch: Watch, directory: Path, rules: Path = RULES) -> dict[str, list[str]]:
    """The alerts that fired at any scrape, with promtool's words. Raises RuntimeError when it cannot say."""
    every = [rule for group in yaml.safe_load(rules.read_text())["groups"] for rule in group["rules"]]
    named = {name for rule in every for name, _ in selectors(rule["expr"])}
    asked = [
        {"eval_time": f"{at * watch.every_seconds}s", "alertname": rule["alert"], "exp_alerts": []}
        for rule in every
        for at in range(watch.scrapes)
    ]
    told = [
        {"series": _named(one), "values": " ".join(_value(values.get(at)) for at in range(watch.scrapes))}
        for one, values in watch.series.items()
        if one[0] in named
    ]
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": f"{watch.every_seconds}s",
        "tests": [
            {"interval": f"{watch.every_seconds}s", "input_series": told, "alert_rule_test": asked},
        ],
    }
    file = directory / "alerts.test.yml"
    file.write_text(json.dumps(test))  # which is YAML
    assert PROMTOOL, "promtool is needed"
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, timeout=300, check=False
    )
    words = done.stdout + done.stderr
    found: dict[str, list[str]] = defaultdict(list)
    for name, at in re.findall(r"alertname: (\w+), time: (\S+),", words):
        found[name].append(at)
    if (done.returncode != 0) != bool(found):
        raise RuntimeError(f"promtool ended with {done.returncode}: {words[-2000:]}")
    return dict(found)


def _named(series: Series) -> str:
    name, labels = series
    return f"{name}{{{', '.join(f'{label}={json.dumps(value)}' for label, value in sorted(labels))}}}"


def _value(value: float | None) -> str:
    return "_" if value is None else {"inf": "Inf", "-inf": "-Inf", "nan": "NaN"}.get(str(value), repr(value))


def with_a_fault(watch: Watch) -> Watch:
    """The same scrapes with one broken promise: what says nothing of it would say nothing of anything."""
    worse: dict[Series, dict[int, float]] = defaultdict(dict, watch.series)
    labels: Any = {("promise", "1"), ("job", "payouts-api"), ("instance", "planted")}
    worse["payouts_check_faults", frozenset(labels)] = dict.fromkeys(range(watch.scrapes), 1.0)
    return Watch(watch.every_seconds, watch.began, watch.scrapes, worse)
