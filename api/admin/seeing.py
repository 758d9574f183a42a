"""The one place where the panel's pages are looked through: text of others shows what nobody would see in it.

In the text between tags only. Attributes hold what a form sends back, which has to be what is stored.
"""

import re

from flask import Blueprint, Flask, Response

from shared.visible import isolated, visible

# A tag, and the text behind it. Whatever stands in a page was escaped: no attribute holds a < or a >.
_PIECE = re.compile(r"(<(/?[a-zA-Z0-9]*)[^<>]*>)([^<]+)")
AS_PLAIN_TEXT = frozenset({"title", "option", "textarea"})  # elements in these would be text
NOT_SHOWN = frozenset({"script", "style"})


def prepare(panel: Flask | Blueprint) -> None:
    """Look through each page before it is sent."""
    panel.after_request(_seen)


def _seen(response: Response) -> Response:
    if response.mimetype == "text/html" and not response.is_streamed:
        page = response.get_data(as_text=True)
        if not page.isascii():
            response.set_data(_PIECE.sub(_piece, page))
    return response


def _piece(found: re.Match[str]) -> str:
    tag, name, text = found.groups()
    if text.isascii() or name.lower() in NOT_SHOWN:
        return found[0]
    shown = visible(text)
    return tag + (shown if name.lower() in AS_PLAIN_TEXT else isolated(shown))
