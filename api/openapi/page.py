"""`/docs/`: the document, and Swagger UI to read and try it. Everything is served by this process."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256

from apiflask import APIFlask
from flask import Response, jsonify
from flask_swagger_ui import get_swaggerui_blueprint

from api.openapi import document

PAGE_PATH = "/docs"
DOCUMENT_PATH = "/docs/openapi.json"
UI_CONFIG = {
    "app_name": "Coin Payouts",
    "layout": "BaseLayout",  # without the bar that loads other documents
    "validatorUrl": None,  # or the document would be sent to an external service
    "oauth2RedirectUrl": None,
    "defaultModelsExpandDepth": 0,
    "tryItOutEnabled": True,
}
SCRIPT = re.compile(rb"<script>(.*?)</script>", re.S)


def register(app: APIFlask) -> None:
    """Serve the document and its page; neither needs a key, and neither holds a secret.

    APIFlask's own routes would accept OPTIONS and refuse a trailing slash, unlike ours, and its page loads
    Swagger UI from another server.
    """
    document.configure(app)
    spec = cache(lambda: app.spec)  # building it takes a while
    app.add_url_rule(DOCUMENT_PATH, "openapi", lambda: jsonify(spec()), methods=["GET"])
    pages = get_swaggerui_blueprint(PAGE_PATH, DOCUMENT_PATH, config=UI_CONFIG)
    pages.after_request(_restrict_sources)
    app.register_blueprint(pages)


def _restrict_sources(response: Response) -> Response:
    """Let the page load nothing from other servers, and run no scripts but its own."""
    if response.mimetype != "text/html":
        return response
    hashes = [
        f"'sha256-{b64encode(sha256(script).digest()).decode()}'"
        for script in SCRIPT.findall(response.get_data())
    ]
    response.headers["Content-Security-Policy"] = "; ".join(
        [
            "default-src 'self'",
            f"script-src 'self' {' '.join(hashes)}",
            "style-src 'self' 'unsafe-inline'",  # Swagger UI sets styles on its elements
            "img-src 'self' data:",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ]
    )
    return response
