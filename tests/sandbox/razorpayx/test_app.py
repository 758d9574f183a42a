"""Starting and stopping the process."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import requests

from .conftest import ROOT, Client, environment, start, wait_until

CREDENTIALS = ("SIM_KEY_ID", "SIM_KEY_SECRET", "SIM_ACCOUNT_NUMBER")


def run(**extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox.razorpayx"],
        cwd=ROOT,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@pytest.mark.parametrize(
    "extra,named",
    [
        ({"SIM_KEY_ID": "", "SIM_KEY_SECRET": "", "SIM_ACCOUNT_NUMBER": ""}, CREDENTIALS),
        ({"SIM_WEBHOOK_URL": "http://127.0.0.1:1/x"}, ("SIM_WEBHOOK_SECRET",)),
        ({"SIM_SPEED": "quick", "SIM_BALANCE_PAISE": "1.5"}, ("SIM_SPEED", "SIM_BALANCE_PAISE")),
        ({"SIM_SPEED": "0"}, ("SIM_SPEED",)),
        ({"SIM_SPEED": "nan"}, ("SIM_SPEED",)),
        (
            {"SIM_WEBHOOK_URL": "ftp://x", "SIM_WEBHOOK_SECRET": "a", "SIM_WEBHOOK_PREVIOUS_SECRET": "b"},
            ("SIM_WEBHOOK_URL",),
        ),
    ],
)
def test_an_invalid_configuration_does_not_start_and_names_every_fault(extra, named):
    done = run(**extra)
    assert done.returncode == 2
    for name in named:
        assert name in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_at_once_even_with_a_held_connection(tmp_path, number):
    process, url = start(tmp_path, SIM_SPEED="20")
    client = Client(url)
    body = client.order("silent.after-1@sim")

    def hang() -> None:
        with pytest.raises(requests.RequestException):
            answer = client.send(body, timeout=20)
            answer.json()

    thread = threading.Thread(target=hang)
    thread.start()
    wait_until(lambda: Client(url).look("payouts")["count"] == 1, "the held call")
    started = time.monotonic()
    os.kill(process.pid, number)
    assert process.wait(20) == 0
    assert time.monotonic() - started < 10  # the call is held for twenty
    thread.join(15)
    assert not thread.is_alive()
