"""Many withdrawals from a file: prizes that an operator pays.

Source    the file, read row by row                          rows.py
Scratch   which references it has, on disk while it is read  scratch.py
asked     what each row asks for, or why it cannot be taken  wishes.py
contents  all that it asks for, and which operators it pays  contents.py
take      take each row's coins, once for its reference      taking.py
rehearse  say what would be taken, and change nothing        rehearsing.py
Result    what became of a row                               results.py
report_to a line for each of them, for a spreadsheet         report.py
"""

from shared.importing.contents import Contents, contents
from shared.importing.rehearsing import rehearse
from shared.importing.report import report_to
from shared.importing.results import Outcome, Result
from shared.importing.rows import Row, Source, Unreadable
from shared.importing.scratch import Scratch
from shared.importing.taking import Most, take

__all__ = [
    "Contents",
    "Most",
    "Outcome",
    "Result",
    "Row",
    "Scratch",
    "Source",
    "Unreadable",
    "contents",
    "rehearse",
    "report_to",
    "take",
]
