"""The decision records: numbered without gaps, in three parts, each once in the index; and the style guide."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "decisions"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
STYLE = (ROOT / "docs" / "style.md").read_text()
OURS = re.compile(r"`((?:api|cli|docs|sandbox|shared|tests|worker)/[\w/.]*)`")
TITLE = re.compile(r"# (\d+)\. (.+)\n\nDate: \d{4}-\d{2}-\d{2}\n")


def title_of(record: Path) -> tuple[int, str]:
    head = TITLE.match(record.read_text())
    assert head, f"{record.name} begins with `# N. Title` and `Date: YYYY-MM-DD`"
    return int(head[1]), head[2]


def test_records_are_numbered_without_gaps() -> None:
    numbers = list(range(1, len(RECORDS) + 1))
    assert [int(record.name.partition("-")[0]) for record in RECORDS] == numbers
    assert [title_of(record)[0] for record in RECORDS] == numbers


def test_each_record_is_in_the_index_once_under_its_title() -> None:
    listed = re.findall(r"^- \[(\d+)\. (.+)\]\((\S+)\)$", (FOLDER / "README.md").read_text(), re.M)
    index = sorted((int(number), title, name) for number, title, name in listed)
    assert index == [(*title_of(record), record.name) for record in RECORDS]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem[:4])
def test_a_record_has_three_parts_and_is_short(record: Path) -> None:
    text = record.read_text()
    parts = re.findall(r"^\*\*(\w+)\.\*\* ", text, re.M)
    assert parts == ["Context", "Decision", "Consequences"]
    assert len(re.sub(r"^\|.*", "", text, flags=re.M).split()) <= 190, (
        "split the record, or leave out what other records say"
    )


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem[:4])
def test_each_file_that_a_record_names_exists(record: Path) -> None:
    for name in OURS.findall(record.read_text()):
        assert (ROOT / name).exists(), f"{record.name} names {name}: write its new path"


def test_each_example_of_style_exists() -> None:
    for name in OURS.findall(STYLE.partition("## Further reading")[0]):
        assert (ROOT / name).exists(), name
