"""The rows of the report, in its order."""

from bench.rows import (
    counts,
    create,
    drain,
    flood,
    hot,
    idle,
    pace,
    parts,
    pending,
    reads,
    slow,
    storage,
    webhooks,
)

ROWS = (
    create.ROW,
    drain.ROW,
    counts.ROW,
    slow.ROW,
    webhooks.ROW,
    idle.ROW,
    pace.ROW,
    pending.ROW,
    reads.ROW,
    hot.ROW,
    flood.ROW,
    storage.ROW,
    parts.ROW,
)
YEAR = ("pending", "reads", "hot", "flood")  # and a slow provider: its own row
