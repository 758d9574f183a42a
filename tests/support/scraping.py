"""The samples of a scrape, as numbers."""

from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Every sample by its name and labels. Raises ValueError for invalid text."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Scrape:
    """One scrape: `scrape("payouts_queue_messages", queue="payouts")`, 0 for a sample that does not exist."""

    def __init__(self, text: str | TestResponse) -> None:
        self.text = text if isinstance(text, str) else text.get_data(as_text=True)
        self.samples = samples(self.text)

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all labels that are not given."""
        required = labels.items()
        return sum(value for (key, given), value in self.samples.items() if key == name and required <= given)

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}
