"""How many may stand at the API's door, and what is said where that cannot be bounded."""

import resource
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api import connections
from shared.cli import processes


def test_a_machine_that_shows_no_connections_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connections, "OPEN_FILES", tmp_path / "none")
    watch = connections.Watch(8000, 60)
    with capture_logs() as told:
        watch.start()
    assert not watch.is_alive()
    [line] = told
    assert line["log_level"] == "warning" and "not bounded" in line["event"] and "proxy" in line["what_to_do"]


@pytest.mark.parametrize(
    ("limits", "asked", "room"),
    [
        ((1024, 20_000), [(4352, 20_000)], 4096),
        ((20_000, 20_000), [], 4096),
        ((256, resource.RLIM_INFINITY), [(4352, resource.RLIM_INFINITY)], 4096),
        ((1024, 1024), [], 768),
        ((100, 100), [], 50),
    ],
)
def test_fewer_connections_where_fewer_files_may_be_open(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limits: tuple[int, int],
    asked: list[tuple[int, int]],
    room: int,
) -> None:
    did: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: did.append(wanted))
    assert processes._room_for(4096) == room
    assert did == asked
    assert ("API_CONNECTIONS" in capsys.readouterr().err) == (room < 4096)
