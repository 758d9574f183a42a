"""Both clients behind one interface, so that the same tests run for both."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from sandbox.stack import ROOT

CALL = Path(__file__).with_name("call.mjs")
SECONDS = 60


def python_module() -> ModuleType:
    """The module examples/python/coin_payouts.py."""
    path = ROOT / "examples" / "python" / "coin_payouts.py"
    spec = importlib.util.spec_from_file_location("coin_payouts", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["coin_payouts"] = module
    spec.loader.exec_module(module)
    return module


coin_payouts = python_module()


@dataclass
class Failure(Exception):
    """An error that a client raised: the name of its class, and its fields."""

    name: str
    code: str
    status: int
    extra: dict[str, Any] = field(default_factory=dict)
    retry_after: float | None = None


class Mistake(Exception):
    """The error of a client for an invalid call. (Each language has its own class for it.)"""


@dataclass(frozen=True)
class Client:
    """A client with an address and a key; withdrawals and wallets come back as dictionaries."""

    call: Callable[..., Any]

    def withdraw(self, user_id: str, amount: int, upi_id: str, key: str | None) -> dict[str, Any]:
        return self.call("withdraw", user_id, amount, upi_id, idempotency_key=key)

    def cancel(self, withdrawal_id: str) -> dict[str, Any]:
        return self.call("cancel", withdrawal_id, "Changed my mind")

    def credit(self, user_id: str, coins: int, reference: str) -> dict[str, Any]:
        return self.call("credit", user_id, coins, reference=reference)

    def history(self, user_id: str, **options: Any) -> list[dict[str, Any]]:
        return self.call("history", user_id, **options)

    def follow(self, withdrawal_id: str) -> list[dict[str, Any]]:
        return self.call("follow", withdrawal_id)

    def wallet(self, user_id: str) -> dict[str, Any]:
        return self.call("wallet", user_id)


def in_python(url: str, key: str, max_tries: int = 6) -> Client:
    client = coin_payouts.CoinPayouts(url, key, max_tries=max_tries)

    def call(method: str, *args: Any, **options: Any) -> Any:
        try:
            result = getattr(client, method)(*args, **options)
            return [_fields(item) for item in result] if method in ("history", "follow") else _fields(result)
        except coin_payouts.PayoutsError as error:
            after = getattr(error, "retry_after", None)
            raise Failure(type(error).__name__, error.code, error.http_status, error.extra, after) from error
        except ValueError as error:
            raise Mistake(str(error)) from error

    return Client(call)


def _fields(answer: Any) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in answer.__dataclass_fields__}


def in_node(node: str, url: str, key: str, max_tries: int = 6) -> Client:
    def call(method: str, *args: Any, **options: Any) -> Any:
        camel = {"idempotency_key": "idempotencyKey", "page_size": "pageSize"}
        given = [*args, {camel.get(name, name): value for name, value in options.items()}]
        request = {"url": url, "key": key, "maxTries": max_tries, "method": method, "args": given}
        done = subprocess.run(
            [node, str(CALL), json.dumps(request)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        output = json.loads(done.stdout)
        if "error" in output:
            error = output["error"]
            if "code" not in error:
                assert error["name"] == "TypeError", error["message"]
                raise Mistake(error["message"])
            after = error.get("retryAfterMs")
            seconds = None if after is None else after / 1000
            raise Failure(error["name"], error["code"], error["status"], error["extra"], seconds)
        return output["result"]

    return Client(call)
