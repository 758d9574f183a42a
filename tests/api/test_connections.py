"""The number of connections, and the warning where they cannot be limited."""

import resource
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api import connections
from cli import processes


def test_a_warning_is_logged_at_start_if_connections_cannot_be_limited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connections, "OPEN_FILES", tmp_path / "none")
    watch = connections.ConnectionWatch(8000, 60)
    with capture_logs() as logs:
        watch.start()
    assert not watch.is_alive()
    [line] = logs
    assert line["log_level"] == "warning" and "not limited" in line["event"] and "proxy" in line["what_to_do"]


@pytest.mark.parametrize(
    ("limits", "expected", "allowed"),
    [
        ((1024, 20_000), [(4352, 20_000)], 4096),
        ((20_000, 20_000), [], 4096),
        ((256, resource.RLIM_INFINITY), [(4352, resource.RLIM_INFINITY)], 4096),
        ((1024, 1024), [], 768),
        ((100, 100), [], 50),
    ],
)
def test_the_open_file_limit_bounds_the_number_of_connections(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limits: tuple[int, int],
    expected: list[tuple[int, int]],
    allowed: int,
) -> None:
    limits_set: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits_set.append(wanted))
    assert processes._allowed_connections(4096) == allowed
    assert limits_set == expected
    assert ("API_CONNECTIONS" in capsys.readouterr().err) == (allowed < 4096)
