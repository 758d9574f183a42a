"""The application class leaves out what costs time, and nothing that a caller can see."""

from datetime import UTC, datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.application import Application
from tests.support.api import WITHDRAW, assert_refused


@pytest.mark.parametrize(
    "value", [{"b": "é ₹ \u2028 </script>", "a": [1, 2.5, None, True]}, {"at": datetime.now(UTC)}]
)
def test_json_is_flasks_in_the_order_of_the_fields(value: dict[str, object]) -> None:
    flask = Flask("flask")
    flask.json.sort_keys = False  # type: ignore[attr-defined]
    ours = Application("ours").json.response(value)
    theirs = flask.json.response(value)
    assert ours.get_data() == theirs.get_data()
    assert ours.headers.to_wsgi_list() == theirs.headers.to_wsgi_list()


def test_only_routes_without_parameters_are_kept_however_many_paths_are_requested(
    client: FlaskClient,
) -> None:
    application = client.application
    assert isinstance(application, Application)
    for number in range(200):
        assert client.get(f"/nothing/{number}").status_code == 404
        assert client.get(f"/docs/{number}.js").status_code in (404, 200)
    for _ in range(3):
        assert_refused(client.post(WITHDRAW, json={}), 400, "user_id is required")
        assert_refused(client.post(WITHDRAW.rstrip("/"), json={}), 400, "user_id is required")
        assert_refused(client.delete(WITHDRAW), 405, "Method not allowed")
        assert_refused(client.post(f"/{WITHDRAW}", json={}), 404, "Not found")
    assert len(application._known_routes) <= 4, application._known_routes


def test_a_response_sets_no_cookie(client: FlaskClient) -> None:
    answer = client.post(WITHDRAW, json={}, headers={"Cookie": "session=x"})
    assert "Set-Cookie" not in answer.headers
