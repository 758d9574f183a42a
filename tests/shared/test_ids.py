"""Ids are UUIDs of version 7."""

from uuid import UUID

import pytest

from shared import ids


@pytest.mark.failure(19)
def test_ids_are_uuid7_ascend_and_fit_the_provider() -> None:
    new_ids = [ids.new_id() for _ in range(100)]
    assert new_ids == sorted(new_ids) and len(set(new_ids)) == 100
    assert all(isinstance(item, UUID) and item.version == 7 and len(str(item)) == 36 for item in new_ids)


@pytest.mark.parametrize("text", ["", "x", "0", None, 5, "01a208a5-b724-779f-a85a-7688d7fa28b"])
def test_invalid_ids_are_none(text: object) -> None:
    assert ids.parse_id(text) is None  # type: ignore[arg-type]
