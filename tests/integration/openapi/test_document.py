"""The OpenAPI document says what the code does, its examples are true, and its page needs nobody else."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
import schemathesis
from flask.testing import FlaskClient
from hypothesis import example, given, settings
from hypothesis.strategies import integers
from werkzeug.test import TestResponse

from api.app import create_app
from api.openapi import reference
from api.shapes import digits_between
from tests.integration.app import BATCH, CANCEL, CREDIT, GOOD, STATUS, WALLET, WITHDRAW
from tests.world import World, forget_settings

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT: dict[str, Any] = json.loads((DOCS / "openapi.json").read_text())
OPERATIONS = {operation["operationId"]: operation for _, _, operation in reference.operations(DOCUMENT)}


def test_both_files_are_current() -> None:
    made = reference.document()
    assert (DOCS / "openapi.json").read_text() == reference.as_json(made), "run `make openapi`"
    assert (DOCS / "api.md").read_text() == reference.as_text(made), "run `make openapi`"


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    schemathesis.openapi.from_path(DOCS / "openapi.json").validate()


def test_every_route_is_described() -> None:
    app = create_app(reference.DEFAULTS)
    pages = {"/docs/", "/docs/<path:path>", "/docs/openapi.json", "/metrics"}  # the last is docs/metrics.md's
    routes = {rule.rule for rule in app.url_map.iter_rules()} - pages
    assert routes == set(DOCUMENT["paths"]), "a view without `described` is not in the document"


def responses() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            shared = response.get("$ref", "").rpartition("/")[2]
            yield name, status, DOCUMENT["components"]["responses"][shared] if shared else response


def shown(media: dict[str, Any]) -> list[Any]:
    return [media["example"]] if "example" in media else [one["value"] for one in media["examples"].values()]


@pytest.mark.parametrize(
    "response", [pytest.param(response, id=f"{name}-{status}") for name, status, response in responses()]
)
def test_every_answer_has_examples_that_fit(response: dict[str, Any]) -> None:
    media = response["content"]["application/json"]
    assert shown(media)
    for one in shown(media):
        fits(media["schema"], one)


def test_every_request_has_an_example_that_fits() -> None:
    notice = DOCUMENT["webhooks"]["withdrawal"]["post"]
    for operation in (*OPERATIONS.values(), notice):
        for parameter in operation.get("parameters", []):
            fits(parameter["schema"], parameter["example"])
        if "requestBody" in operation:
            media = operation["requestBody"]["content"]["application/json"]
            fits(media["schema"], media["example"])


def test_every_link_leads_from_what_is_answered_to_what_is_taken() -> None:
    for _, _, response in responses():
        for link in response.get("links", {}).values():
            target = OPERATIONS[link["operationId"]]
            taken = {parameter["name"] for parameter in target.get("parameters", [])}
            assert link.get("parameters", {}).keys() <= taken
            if "requestBody" in link:
                media = target["requestBody"]["content"]["application/json"]
                assert link["requestBody"].keys() <= media["example"].keys()
            for place in [*link.get("parameters", {}).values(), *link.get("requestBody", {}).values()]:
                source, _, path = place.partition("#/")
                found = shown(response["content"]["application/json"])[0] if path else {}
                for name in path.split("/") if source == "$response.body" else []:
                    assert name in found, place
                    found = found[name]


def fits(schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": DOCUMENT["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def twice(client: FlaskClient) -> TestResponse:
    key = {"Idempotency-Key": "k"}
    client.post(WITHDRAW, json=GOOD, headers=key)
    return client.post(WITHDRAW, json={**GOOD, "amount": 501}, headers=key)


# What only the database can tell: (operation, code, coins of user123, how it comes about).
TOLD: list[tuple[str, str, int, Callable[[FlaskClient, World], TestResponse]]] = [
    ("request_withdrawal", "wallet_not_found", 0, lambda c, _: c.post(WITHDRAW, json=GOOD)),
    ("request_withdrawal", "insufficient_coins", 120, lambda c, _: c.post(WITHDRAW, json=GOOD)),
    (
        "request_withdrawal",
        "amount_too_high",
        200_000,
        lambda c, _: c.post(WITHDRAW, json={**GOOD, "amount": 100_001}),
    ),
    ("request_withdrawal", "idempotency_key_reused", 2000, lambda c, _: twice(c)),
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
    ("name", "code", "coins", "provoke"), TOLD, ids=[f"{name}-{code}" for name, code, *_ in TOLD]
)
def test_a_refusal_is_worded_as_documented(
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
    told = {**answer.get_json(), "request_id": None}
    assert told["code"] == code
    assert told in [{**one, "request_id": None} for one in shown(examples)]


def test_the_bounds_are_those_of_this_system(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIN_WITHDRAWAL_COINS", "250")
    forget_settings()
    served = create_app().test_client().get("/docs/openapi.json").get_json()
    amount = served["components"]["schemas"]["WithdrawIn"]["properties"]["amount"]
    assert amount["anyOf"][0]["minimum"] == 250
    assert re.fullmatch(amount["anyOf"][1]["pattern"], "250")
    assert not re.fullmatch(amount["anyOf"][1]["pattern"], "249")


def test_the_page_needs_no_key_and_nobody_else(client: FlaskClient) -> None:
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


@settings(deadline=None)  # how long one example takes says something of the machine alone
@given(least=integers(1, 3000), more=integers(0, 3000), number=integers(0, 9000))
@example(least=100, more=99_900, number=100_000)
@example(least=1, more=10**12 - 1, number=10**12 + 1)
def test_a_pattern_takes_exactly_the_numbers_between(least: int, more: int, number: int) -> None:
    pattern = re.compile(digits_between(least, least + more))
    for one in (number, least - 1, least, least + more, least + more + 1):
        assert bool(pattern.fullmatch(str(one))) == (least <= one <= least + more)
