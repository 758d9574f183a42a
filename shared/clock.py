"""Times as people and clients read them. The money path uses PostgreSQL's clock, not this module."""

from datetime import UTC, datetime, timedelta, timezone

# A day is a day in India, which has one time zone and no summer time.
INDIA = timezone(timedelta(hours=5, minutes=30))


def iso(moment: datetime | None) -> str | None:
    """Return `moment` as ISO 8601 in UTC ending in `Z`, with microseconds if it has any; None for None."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def from_iso(text: str) -> datetime:
    """Parse what `iso` wrote. Raises ValueError for anything else, including a time without a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time has no time zone")
    return moment
