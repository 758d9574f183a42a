"""The webhooks that we send to apps, described (Standard Webhooks)."""

from typing import Any

from api.openapi import answers
from api.openapi.responses import JSON, refer
from shared.states import Status

TAG = "Webhooks to your app"
SIGNED = (
    (
        "webhook-id",
        "The event's id: the same one each time it is sent",
        "msg_01a208a5b72477",
        {"type": "string"},
    ),
    ("webhook-timestamp", "When it was sent, in seconds since 1970", "1795442421", {"type": "string"}),
    (
        "webhook-signature",
        "`v1,<base64 of HMAC-SHA256 over id.timestamp.body>`; two of them, with a blank between, while the "
        "secret is being changed",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]+=*( v1,[A-Za-z0-9+/]+=*)*$"},
    ),
)
ABOUT = (
    "Sent to each of your endpoints on every change of a withdrawal: "
    + ", ".join(f"`withdrawal.{status}`" for status in Status)
    + ". The same event may come twice, and events may come out of order: keep the highest `sequence` of "
    "each withdrawal. Check the signature before you believe it (Standard Webhooks; there are libraries)."
)


def described() -> dict[str, Any]:
    """The document's `webhooks`."""
    content = {
        "schema": refer(answers.Notice),
        "example": answers.example(answers.Notice),
    }
    post = {
        "operationId": "withdrawal_changed",
        "tags": [TAG],
        "summary": "A withdrawal changed",
        "description": ABOUT,
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": about,
                "schema": schema,
                "example": example,
            }
            for name, about, example, schema in SIGNED
        ],
        "requestBody": {"required": True, "content": {JSON: content}},
        "responses": {
            "2XX": {"description": "You have it"},
            "default": {
                "description": "Anything else, or no answer: it is sent again, later each time, for a day"
            },
        },
    }
    return {"withdrawal": {"post": post}}
