"""The OpenAPI document matches the code, its examples are true, and its page loads nothing external."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import example, given, settings
from hypothesis.strategies import integers
from werkzeug.test import TestResponse

from api import reference
from api.app import create_app
from api.json_schemas import digits_between
from tests.support.api import BATCH, CANCEL, CREDIT, GOOD, STATUS, WALLET, WITHDRAW
from tests.support.paths import ROOT
from tests.support.world import World, forget_settings

DOCS = ROOT / "docs"
DOCUMENT: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())
OPERATIONS = {operation["operationId"]: operation for _, _, operation in reference.operations(DOCUMENT)}


def test_openapi_json_and_api_md_are_current() -> None:
    spec = reference.document()
    assert (DOCS / "openapi.json").read_text() == reference.as_json(spec), "run `make openapi`"
    assert (DOCS / "api.md").read_text() == reference.as_text(spec), "run `make openapi`"


def test_the_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    schemathesis.openapi.from_path(DOCS / "openapi.json").validate()


def test_every_route_is_described() -> None:
    app = create_app(reference.DEFAULTS)
    pages = {
        "/docs/",
        "/docs/<path:path>",
        "/docs/openapi.json",
        "/metrics",
    }  # docs/metrics.md describes /metrics
    routes = {rule.rule for rule in app.url_map.iter_rules()} - pages
    assert routes == set(DOCUMENT["paths"]), "a view without `documented` is not in the document"


def responses() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            shared = response.get("$ref", "").rpartition("/")[2]
            yield name, status, DOCUMENT["components"]["responses"][shared] if shared else response


def examples_of(media: dict[str, Any]) -> list[Any]:
    return (
        [media["example"]]
        if "example" in media
        else [example["value"] for example in media["examples"].values()]
    )


@pytest.mark.parametrize(
    "response", [pytest.param(response, id=f"{name}-{status}") for name, status, response in responses()]
)
def test_every_response_has_examples_that_match_its_schema(response: dict[str, Any]) -> None:
    media = response["content"]["application/json"]
    assert examples_of(media)
    for value in examples_of(media):
        assert_valid(media["schema"], value)


def test_every_request_has_an_example_that_matches_its_schema() -> None:
    webhook = DOCUMENT["webhooks"]["withdrawal"]["post"]
    for operation in (*OPERATIONS.values(), webhook):
        for parameter in operation.get("parameters", []):
            assert_valid(parameter["schema"], parameter["example"])
        if "requestBody" in operation:
            media = operation["requestBody"]["content"]["application/json"]
            assert_valid(media["schema"], media["example"])


def test_every_link_connects_a_response_field_to_a_parameter() -> None:
    for _, _, response in responses():
        for link in response.get("links", {}).values():
            target = OPERATIONS[link["operationId"]]
            accepted = {parameter["name"] for parameter in target.get("parameters", [])}
            assert link.get("parameters", {}).keys() <= accepted
            if "requestBody" in link:
                media = target["requestBody"]["content"]["application/json"]
                assert link["requestBody"].keys() <= media["example"].keys()
            for place in [*link.get("parameters", {}).values(), *link.get("requestBody", {}).values()]:
                source, _, path = place.partition("#/")
                sent = examples_of(response["content"]["application/json"])[0] if path else {}
                for name in path.split("/") if source == "$response.body" else []:
                    assert name in sent, place
                    sent = sent[name]


def assert_valid(schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def request_twice_with_one_key(client: FlaskClient) -> TestResponse:
    key = {"Idempotency-Key": "k"}
    client.post(WITHDRAW, json=GOOD, headers=key)
    return client.post(WITHDRAW, json={**GOOD, "amount": 501}, headers=key)


# Errors that depend on the database: (operation, code, coins of user123, how to provoke it).
DATABASE_ERRORS: list[tuple[str, str, int, Callable[[FlaskClient, World], TestResponse]]] = [
    ("request_withdrawal", "wallet_not_found", 0, lambda c, _: c.post(WITHDRAW, json=GOOD)),
    ("request_withdrawal", "insufficient_coins", 120, lambda c, _: c.post(WITHDRAW, json=GOOD)),
    (
        "request_withdrawal",
        "amount_too_high",
        200_000,
        lambda c, _: c.post(WITHDRAW, json={**GOOD, "amount": 100_001}),
    ),
    ("request_withdrawal", "idempotency_key_reused", 2000, lambda c, _: request_twice_with_one_key(c)),
    (
        "status",
        "withdrawal_not_found",
        0,
        lambda c, _: c.get(STATUS, query_string={"withdrawal_id": uuid4()}),
    ),
    ("cancel", "withdrawal_not_found", 0, lambda c, _: c.post(CANCEL, json={"withdrawal_id": str(uuid4())})),
    ("cancel", "cannot_cancel", 0, lambda c, w: c.post(CANCEL, json={"withdrawal_id": str(w.paid())})),
    ("batch", "missing", 0, lambda c, _: c.post(BATCH, json={"items": [GOOD]})),
    ("read", "wallet_not_found", 0, lambda c, _: c.get(WALLET, query_string={"user_id": "user123"})),
    (
        "credit",
        "reference_reused",
        500,
        lambda c, _: c.post(CREDIT, json={"user_id": "user123", "coins": 501, "reference": "start"}),
    ),
    ("webhook", "invalid_signature", 0, lambda c, _: c.post("/api/razorpay/webhook/", json={})),
]


@pytest.mark.parametrize(
    ("name", "code", "coins", "provoke"),
    DATABASE_ERRORS,
    ids=[f"{name}-{code}" for name, code, *_ in DATABASE_ERRORS],
)
def test_an_error_response_matches_its_documented_example(
    name: str,
    code: str,
    coins: int,
    provoke: Callable[[FlaskClient, World], TestResponse],
    client: FlaskClient,
    world: World,
) -> None:
    if coins:
        world.credit(coins=coins)
    answer = provoke(client, world)
    examples = OPERATIONS[name]["responses"][str(answer.status_code)]["content"]["application/json"]
    problem = {**answer.get_json(), "request_id": None}
    assert problem["code"] == code
    assert problem in [{**example, "request_id": None} for example in examples_of(examples)]


def test_the_served_document_has_the_configured_limits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "250")
    forget_settings()
    served = create_app().test_client().get("/docs/openapi.json").get_json()
    amount = served["components"]["schemas"]["WithdrawIn"]["properties"]["amount"]
    assert amount["anyOf"][0]["minimum"] == 250
    assert re.fullmatch(amount["anyOf"][1]["pattern"], "250")
    assert not re.fullmatch(amount["anyOf"][1]["pattern"], "249")


def test_the_documentation_page_needs_no_key_and_no_external_site(client: FlaskClient) -> None:
    client.environ_base.pop("HTTP_AUTHORIZATION")
    page = client.get("/docs/")
    assert page.status_code == 200
    assert not re.findall(r"https?://", page.get_data(as_text=True))
    assert '"validatorUrl": null' in page.get_data(as_text=True)
    assert "script-src 'self' 'sha256-" in page.headers["Content-Security-Policy"]
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.get_data(as_text=True)):
        assert client.get(address).status_code == 200, address
    served = client.get("/docs/openapi.json")
    assert (served.status_code, served.mimetype) == (200, "application/json")
    assert served.get_json()["paths"] == DOCUMENT["paths"]


@settings(deadline=None)  # the duration of an example depends only on the machine
@given(least=integers(1, 3000), more=integers(0, 3000), number=integers(0, 9000))
@example(least=100, more=99_900, number=100_000)
@example(least=1, more=10**12 - 1, number=10**12 + 1)
def test_the_pattern_matches_exactly_the_integers_in_range(least: int, more: int, number: int) -> None:
    pattern = re.compile(digits_between(least, least + more))
    for integer in (number, least - 1, least, least + more, least + more + 1):
        assert bool(pattern.fullmatch(str(integer))) == (least <= integer <= least + more)
