"""The report: tables of medians and ratios, and sections that replace themselves."""

from pathlib import Path

import pytest

from bench import report
from bench.__main__ import DOCUMENT
from bench.plan import Column, Contender, Goal, Options, Row, Table, ratio
from bench.rows import ROWS, YEAR

RESULTS = {
    "ours": [{"rate": 100.0, "p99": 4.0}, {"rate": 300.0, "p99": 6.0}],
    "rival": [{"rate": 50.0}, {"rate": 100.0}],
}


def contenders(_options: Options) -> list[Contender]:
    return []


def row(name: str = "create") -> Row:
    return Row(
        name,
        "Accepting",
        "What it is.",
        contenders,
        [Table("16 connections", [Column("rate", "per second"), Column("p99", "p99, ms", max)], "rate")],
        [
            Goal("at least 2 × the rival", ratio("ours", "rival", "rate"), least=2),
            Goal("at least 4 × the rival", ratio("ours", "rival", "rate"), least=4),
            Goal("at least the absent one", ratio("ours", "absent", "rate"), least=4),
        ],
    )


def section(name: str = "create") -> str:
    return report.section(row(name), RESULTS, machine="2026-12-01, commit abc", rounds=2)


def test_a_table_has_medians_and_the_ratio_of_the_first_to_each() -> None:
    assert "| 16 connections | per second | p99, ms | ours / this |" in section()
    assert "| ours | 200 | 6.00 | 1.00 |" in section()
    assert "| rival | 75.0 |  | 2.50 |" in section()


def test_each_goal_is_met_or_not_or_was_not_measured() -> None:
    assert "| at least 2 × the rival | 2.50 | met |" in section()
    assert "| at least 4 × the rival | 2.50 | not met |" in section()
    assert "| at least the absent one |  | not measured |" in section()


def test_a_section_names_its_command_its_machine_and_its_rounds() -> None:
    assert "make bench ARGS='--rows create'" in section()
    assert "2026-12-01, commit abc. Medians of 2 rounds, taken in turns." in section()


def test_sizes_that_are_too_small_meet_no_goal() -> None:
    text = report.section(row(), RESULTS, machine="", rounds=1, goals=False)
    assert "met" not in text and "One round" in text


def test_a_new_document_gets_a_title_and_keeps_the_order(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    for name in ("create", "drain"):
        report.write(path, name, section(name))
    assert path.read_text() == f"# Performance\n\n{section('create')}\n{section('drain')}"


def test_a_section_replaces_its_last_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text(f"# Mine\n\nText.\n\n{section('create')}\n{section('drain')}\n## Other\n\nMore.\n")
    report.write(path, "create", section("create").replace("What it is.", "New \\1 text."))
    text = path.read_text()
    assert text.startswith("# Mine\n\nText.\n\n<!-- bench:create -->")
    assert text.endswith("<!-- bench:/drain -->\n\n## Other\n\nMore.\n")
    assert text.count("New \\1 text.") == 1 and text.count("What it is.") == 1


def test_a_new_section_follows_the_measured_ones(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text(f"# Mine\n\n{section('create')}\n## Other\n\nMore.\n")
    report.write(path, "drain", section("drain"))
    assert path.read_text() == f"# Mine\n\n{section('create')}\n{section('drain')}\n## Other\n\nMore.\n"


def test_the_document_has_markers_of_rows_that_exist() -> None:
    names = {row.name for row in ROWS}
    opened = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("<!-- bench:")]
    assert opened == [
        f"<!-- bench:{slash}{name} -->"
        for name in dict.fromkeys(line.split(":")[1].strip("/ ->") for line in opened)
        for slash in ("", "/")
    ]
    assert {line.split(":")[1].strip("/ ->") for line in opened} <= names
    assert set(YEAR) <= names


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_contender_of_a_row_has_a_name_of_its_own(row: Row) -> None:
    names = [contender.name for contender in row.contenders(Options())]
    assert len(set(names)) == len(names) > 0
