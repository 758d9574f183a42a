"""The judge of `make calm` evaluates the rules: it is silent over healthy scrapes, and not over others."""

from pathlib import Path

import pytest

from api.app import create_app
from shared import spot_checks
from tests.chaos.alerts import PROMTOOL, Watch, fired, with_a_fault
from tests.world import World

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is Debian's package `prometheus`")
API = ("payouts-api", "api")


def test_over_healthy_scrapes_no_alert_fires_and_over_others_one_does(world: World, tmp_path: Path) -> None:
    world.paid()
    spot_checks.run()
    text = create_app().test_client().get("/metrics").get_data(as_text=True)
    # Nobody sweeps in this process: what a worker tells is written by hand.
    worker = 'payouts_task_seconds_count{task="sweep",outcome="done"} '
    watch = Watch(15, 0.0)
    for at in range(8):
        watch.take({API: text, ("payouts-worker", "worker"): f"{worker}{5 + at}\n"})
    watch.series = {  # the clock of promtool begins at 0
        one: {at: 15.0 * at for at in values} if one[0].endswith("_timestamp_seconds") else values
        for one, values in watch.series.items()
    }
    assert fired(watch, tmp_path) == {}
    assert set(fired(with_a_fault(watch), tmp_path)) == {"PayoutsPromiseBroken"}
