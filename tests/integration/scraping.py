"""What a scrape tells, as numbers."""

from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every sample by its name and labels. Raises ValueError for what is no exposition."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Scrape:
    """One scrape: `scrape("payouts_queue_messages", queue="payouts")`, 0 for what was not told."""

    def __init__(self, text: str | TestResponse) -> None:
        self.text = text if isinstance(text, str) else text.get_data(as_text=True)
        self.samples = samples(self.text)

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all labels that are not given."""
        wanted = set(labels.items())
        return sum(v for (n, told), v in self.samples.items() if n == name and wanted <= told)

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}
