"""Makes invisible characters in every page of the panel visible: people outside wrote some of the text.

Only in the text between tags. Attributes hold what a form sends back, which must equal what is stored.
"""

import re

from flask import Blueprint, Flask, Response

from shared.text.invisible import isolate_rtl, mark_invisible

# A tag and the text after it. All text in a page is escaped, so no attribute contains < or >.
_TAG_AND_TEXT = re.compile(r"(<(/?[a-zA-Z0-9]*)[^<>]*>)([^<]+)")
PLAIN_TEXT_TAGS = frozenset({"title", "option", "textarea"})  # they show elements as text
HIDDEN_TAGS = frozenset({"script", "style"})


def prepare(panel: Flask | Blueprint) -> None:
    """Process each page before it is sent."""
    panel.after_request(_mark_page)


def _mark_page(response: Response) -> Response:
    if response.mimetype == "text/html" and not response.is_streamed:
        page = response.get_data(as_text=True)
        if not page.isascii():
            response.set_data(_TAG_AND_TEXT.sub(_mark_text, page))
    return response


def _mark_text(match: re.Match[str]) -> str:
    tag, name, text = match.groups()
    if text.isascii() or name.lower() in HIDDEN_TAGS:
        return match[0]
    marked = mark_invisible(text)
    return tag + (marked if name.lower() in PLAIN_TEXT_TAGS else isolate_rtl(marked))
