"""Times are in UTC and end in Z."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shared import clock


def test_times_are_written_in_utc_and_parsed_back() -> None:
    india = datetime(2026, 1, 9, 21, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert clock.iso(india) == "2026-01-09T15:30:00Z"
    assert clock.iso(None) is None
    assert clock.from_iso("2026-01-09T15:30:00Z") == datetime(2026, 1, 9, 15, 30, tzinfo=UTC)
    with pytest.raises(ValueError):
        clock.from_iso("2026-01-09T15:30:00")
