"""`make calm` really evaluates the alert rules: none fires on healthy scrapes, one fires on a planted fault."""

from pathlib import Path

import pytest

from api.app import create_app
from shared.proof import spot_checks
from tests.chaos.alerts import PROMTOOL, Watch, fired, with_a_fault
from tests.support.world import World

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is Debian's package `prometheus`")
API = ("payouts-api", "api")


def test_alerts_fire_on_a_planted_fault_and_not_on_healthy_scrapes(world: World, tmp_path: Path) -> None:
    world.paid()
    spot_checks.run()
    text = create_app().test_client().get("/metrics").get_data(as_text=True)
    # No worker runs in this process, so its metrics are written by hand.
    worker = 'payouts_task_seconds_count{task="sweep",outcome="done"} '
    watch = Watch(15, 0.0)
    for at in range(8):
        watch.take({API: text, ("payouts-worker", "worker"): f"{worker}{5 + at}\n"})
    watch.series = {  # promtool's clock starts at 0
        series: {at: 15.0 * at for at in values} if series[0].endswith("_timestamp_seconds") else values
        for series, values in watch.series.items()
    }
    assert fired(watch, tmp_path) == {}
    assert set(fired(with_a_fault(watch), tmp_path)) == {"PayoutsPromiseBroken"}
