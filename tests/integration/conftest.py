"""The API in this process, with a key; a day that does not end in the middle of a test."""

import time
from datetime import datetime, timedelta

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from shared.clock import INDIA
from tests.world import KEY, World


@pytest.fixture
def client(world: World) -> FlaskClient:
    client = create_app().test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
    return client


@pytest.fixture
def one_day() -> None:
    """For tests that know which day it is in India: one that is about to end is waited for. So is the hour after
    it, when it can be closed and kept.
    """
    now = datetime.now(INDIA)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for hours in (1, 24):
        left = (midnight + timedelta(hours=hours) - now).total_seconds()
        if 0 < left < 30:
            time.sleep(left + 0.1)
