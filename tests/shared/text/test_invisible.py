"""Invisible characters are marked on pages, in mails and in a shell; stored values stay unchanged."""

import pytest
from flask import Flask

from api.admin import invisible_text
from shared.notifications.mail import texts
from shared.text.invisible import mark_invisible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("asha\u200b", "asha‹U+200B›"),
        ("\u202eahsa", "‹U+202E›ahsa"),
        ("a\u2066b\u2069", "a‹U+2066›b‹U+2069›"),
        ("a\u00a0b", "a‹U+00A0›b"),
        ("\u3164", "‹U+3164›"),
        ("a\x1b[2J", "a‹U+001B›[2J"),
        ("\U000e0041", "‹U+E0041›"),
        ("asha\ufe0f", "asha‹U+FE0F›"),
        ("asha\ufe00", "asha‹U+FE00›"),
        ("asha\U000e0100", "asha‹U+E0100›"),
        ("\u180b\u180d\u180f", "‹U+180B›‹U+180D›‹U+180F›"),
        ("\U00016fe4\U0001d159", "‹U+16FE4›‹U+1D159›"),
        ("❤\ufe0f\ufe0f", "❤\ufe0f‹U+FE0F›"),
        ("🎉\u200d", "🎉‹U+200D›"),
        ("a\u200d🎉", "a‹U+200D›🎉"),
        ("7\ufe0f", "7‹U+FE0F›"),
    ],
)
def test_invisible_characters_are_marked(text: str, shown: str) -> None:
    assert mark_invisible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "asha",
        "a b\n",
        "José",
        "अक्\u200dष",
        "₹5",
        "日本",
        "🎉",
        "❤\ufe0f",
        "❤\ufe0f\u200d🔥",
        "👩\u200d💻",
        "👩🏽\u200d💻",
        "1\ufe0f\u20e3",
        "שלום",
    ],
)
def test_visible_text_is_unchanged(text: str) -> None:
    assert mark_invisible(text) == text


def test_a_page_marks_invisible_characters_in_text_and_keeps_field_values() -> None:
    panel = Flask(__name__)
    invisible_text.prepare(panel)
    user = "\u202eahsa שלום"
    page = f'<title>{user}</title><p>User {user}: 500 coins</p><input name="user" value="{user}">'
    panel.add_url_rule("/", view_func=lambda: page)
    shown = panel.test_client().get("/").get_data(as_text=True)
    assert shown == (
        "<title>‹U+202E›ahsa שלום</title>"
        "<p>User ‹U+202E›ahsa <bdi>שלום:</bdi> 500 coins</p>"
        f'<input name="user" value="{user}">'
    )


def test_a_mail_marks_invisible_characters_too() -> None:
    template = texts._templates().from_string("{{ reason }} <b>{{ reason }}</b>")
    assert template.render(reason="a\u202eb") == "a‹U+202E›b <b>a‹U+202E›b</b>"
