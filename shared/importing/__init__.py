"""Import many withdrawals from a file: prizes that an operator pays.

Source         the file, read row by row                              rows.py
Scratch        the file's references, on disk while it is read        scratch.py
parse_rows     each row's request, or why it is rejected              parse.py
summarize      the file's totals and the operators that it pays       contents.py
import_rows    create each row's withdrawal, once per reference       apply.py
preview_rows   the results of an import, without importing (dry run)  dry_run.py
Result         the result of one row                                  results.py
report_writer  all results as CSV                                     report.py
"""

from shared.importing.apply import ConfirmedLimits, import_rows
from shared.importing.contents import FileSummary, summarize
from shared.importing.dry_run import preview_rows
from shared.importing.report import report_writer
from shared.importing.results import Outcome, Result
from shared.importing.rows import Row, Source, Unreadable
from shared.importing.scratch import Scratch

__all__ = [
    "ConfirmedLimits",
    "FileSummary",
    "Outcome",
    "Result",
    "Row",
    "Scratch",
    "Source",
    "Unreadable",
    "import_rows",
    "preview_rows",
    "report_writer",
    "summarize",
]
