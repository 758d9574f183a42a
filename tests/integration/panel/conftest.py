"""The panel in this process."""

from collections.abc import Callable

import pytest

from api.app import create_app
from shared import queues
from shared.roles import Role
from tests.integration.panel.person import Person, add_operator
from tests.world import World, forget_settings

Signed = Callable[..., Person]


@pytest.fixture
def panel(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A system with a panel, and no failed sign-in counted yet."""
    monkeypatch.setenv("ADMIN_SECRET_KEY", "a-key-of-the-tests-of-32-characters")
    monkeypatch.setenv("ADMIN_COOKIE_SECURE", "off")
    monkeypatch.setenv("RATE_LIMIT_SIGN_IN", "10/minute")
    forget_settings()
    broker = queues.broker()
    for key in broker.scan_iter("*panel*"):
        broker.delete(key)
    return world


@pytest.fixture
def signed_in(panel: World) -> Signed:
    """Makes people who are in, each with a browser, all on one server."""
    app = create_app()

    def made(name: str = "asha", role: Role = Role.OPERATOR) -> Person:
        add_operator(panel, name, role)
        return Person(name, app).sign_in()

    return made
