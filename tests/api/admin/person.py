"""A person with a browser: signs in, opens pages, and sends the forms on them."""

import re
from functools import cache
from html import unescape
from typing import Any
from urllib.parse import urlsplit

from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from shared.roles import Role
from tests.support.world import World

PASSWORD = "correct horse battery"


@cache
def _hash() -> str:
    """Computed once for all tests: it takes 50 ms."""
    return PasswordHasher().hash(PASSWORD)


def add_operator(world: World, name: str, role: Role) -> None:
    world.operators(name, role=str(role), password_hash=_hash())


class Person:
    """One browser with its cookies."""

    def __init__(self, name: str, app: Flask | None = None) -> None:
        self.name = name
        self.client: FlaskClient = (app or create_app()).test_client()
        self.page: TestResponse = self.get("/admin/sign-in/")

    def get(self, path: str, **about: Any) -> TestResponse:
        self.page = self.client.get(path, buffered=True, **about)
        return self.page

    def sign_in(self, password: str = PASSWORD, **more: str) -> "Person":
        self.send(action="/admin/sign-in/", username=self.name, password=password, **more)
        return self

    def send(self, *, action: str | None = None, times: int = 1, **filled: Any) -> TestResponse:
        """Send the form for `action` (default: any but sign-out) with its hidden fields and the given ones."""
        where, fields = self.form(action)
        for _ in range(times):
            self.page = self.client.post(where, data={**fields, **filled})
        return self.page

    def form(self, action: str | None = None) -> tuple[str, dict[str, Any]]:
        """The address of a form on the page, and its hidden fields."""
        here = urlsplit(self.page.request.path).path
        for attributes, inner in re.findall(r"<form([^>]*)>(.*?)</form>", self.page.text, re.S):
            target = re.search(r'action="([^"]*)"', attributes)
            where = unescape(target[1]) if target else here
            is_meant = where == action if action else "sign-out" not in where
            if is_meant and 'method="post"' in attributes:
                fields: dict[str, Any] = {}
                for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', inner):
                    fields.setdefault(name, []).append(unescape(value))
                return where, fields
        raise AssertionError(f"no form to {action} on {here}: {self.page.text}")

    @property
    def messages(self) -> str:
        """The messages of the page, after following a redirect."""
        if self.page.status_code in (302, 303):
            self.get(self.page.location)
        paragraphs = re.findall(r'<p class="message[^"]*"[^>]*>(.*?)</p>', self.page.text, re.S)
        return unescape(" ".join(paragraphs))

    def act(
        self, withdrawal_id: Any, word: str, reason: str = "because", *, times: int = 1, **more: str
    ) -> str:
        """Go through all steps of an action; returns the messages of the last page."""
        self.get(f"/admin/withdrawal/{withdrawal_id}/{word}/")
        if "<textarea" not in self.page.text:
            return self.messages
        self.send(step="confirm", reason=reason, **more)
        if "What will happen" not in self.page.text:
            return self.messages
        self.send(step="do", times=times)
        return self.messages
