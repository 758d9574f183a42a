"""The API in this process, with a key."""

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from tests.world import KEY, World


@pytest.fixture
def client(world: World) -> FlaskClient:
    client = create_app().test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
    return client
