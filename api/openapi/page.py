"""`/docs/`: the document, and Swagger UI to look at it. Everything comes from this process."""

import re
from base64 import b64encode
from functools import partial
from hashlib import sha256

from apiflask import APIFlask
from flask import Response, jsonify
from flask_swagger_ui import get_swaggerui_blueprint

from api.openapi import document

PLACE, DOCUMENT = "/docs", "/docs/openapi.json"
SHOWN = {
    "app_name": "Coin Payouts",
    "layout": "BaseLayout",  # without the bar that loads other people's documents
    "validatorUrl": None,  # or the document would be sent to somebody outside
    "oauth2RedirectUrl": None,
    "defaultModelsExpandDepth": 0,
    "tryItOutEnabled": True,
}
SCRIPT = re.compile(rb"<script>(.*?)</script>", re.S)


def register(app: APIFlask) -> None:
    """Serve the document and its page; neither needs a key, and neither holds a secret."""
    app.config["AUTO_SERVERS"] = False  # where the document came from is where the API is
    app.spec_processor(partial(document.complete, app))
    app.add_url_rule(DOCUMENT, "openapi", lambda: jsonify(app._get_spec()), methods=["GET"])
    pages = get_swaggerui_blueprint(PLACE, DOCUMENT, config=SHOWN)
    pages.after_request(_only_from_here)
    app.register_blueprint(pages)


def _only_from_here(response: Response) -> Response:
    """Let the page load nothing from outside, and run no script but its own."""
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
            "style-src 'self' 'unsafe-inline'",  # Swagger UI writes styles into its elements
            "img-src 'self' data:",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ]
    )
    return response
