"""The panel in this process."""

from collections.abc import Callable

import pytest

from api.app import create_app
from shared.queues import redis_broker
from shared.roles import Role
from tests.api.admin.person import Person, add_operator
from tests.support.world import World, forget_settings

Signed = Callable[..., Person]


@pytest.fixture
def panel(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A system with a panel, and no failed sign-in counted yet."""
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    monkeypatch.setenv("ADMIN_COOKIE_SECURE", "off")
    monkeypatch.setenv("RATE_LIMIT_SIGN_IN", "10/minute")
    forget_settings()
    broker = redis_broker.client()
    for key in broker.scan_iter("*panel*"):
        broker.delete(key)
    return world


@pytest.fixture
def signed_in(panel: World) -> Signed:
    """Signs people in, each with a browser of their own, on one server."""
    app = create_app()

    def sign_in_as(name: str = "asha", role: Role = Role.OPERATOR) -> Person:
        add_operator(panel, name, role)
        return Person(name, app).sign_in()

    return sign_in_as
