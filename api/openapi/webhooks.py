"""The webhooks that we send to apps (Standard Webhooks), in the document."""

from typing import Any

from api.openapi import response_bodies
from api.openapi.responses import JSON, ref
from shared.states import Status

TAG = "Webhooks to your app"
SIGNATURE_HEADERS = (
    (
        "webhook-id",
        "The event's id: the same for each delivery of the event",
        "msg_01a208a5b72477",
        {"type": "string"},
    ),
    ("webhook-timestamp", "When it was sent, as Unix time", "1795442421", {"type": "string"}),
    (
        "webhook-signature",
        "`v1,<base64 of HMAC-SHA256 over id.timestamp.body>`; two of them, separated by a space, while you "
        "rotate the secret",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
        {"type": "string", "pattern": "^v1,[A-Za-z0-9+/]+=*( v1,[A-Za-z0-9+/]+=*)*$"},
    ),
)
ABOUT = (
    "Sent to each of your endpoints on every change of a withdrawal: "
    + ", ".join(f"`withdrawal.{status}`" for status in Status)
    + ". An event may arrive twice, and events may arrive out of order: keep the highest `sequence` of each "
    "withdrawal. Verify the signature before you use it (Standard Webhooks; libraries exist)."
)


def described() -> dict[str, Any]:
    """Return the document's `webhooks`."""
    content = {
        "schema": ref(response_bodies.Notice),
        "example": response_bodies.example(response_bodies.Notice),
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
                "description": description,
                "schema": schema,
                "example": example,
            }
            for name, description, example, schema in SIGNATURE_HEADERS
        ],
        "requestBody": {"required": True, "content": {JSON: content}},
        "responses": {
            "2XX": {"description": "Received"},
            "default": {
                "description": "Any other response, or none: we retry for a day, with increasing delays"
            },
        },
    }
    return {"withdrawal": {"post": post}}
