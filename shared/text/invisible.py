"""Marks invisible characters in text from outside, and characters that change the reading direction.

`asha` and `asha` with a zero-width space are two users; text after U+202E reads backwards. Lists, mails and
terminals show such a character as ‹U+202E›. What is stored and sent stays unchanged.
"""

import re
import unicodedata

INDIC = "\u0900-\u0dff"
# Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties.txt (14.0), as ranges for a regular
# expression: fonts draw none of these. Python's unicodedata lacks this property.
IGNORABLE_CHARACTERS = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Not in that list, but drawn as nothing too: a blank braille pattern, a filler, a null notehead.
BLANK_CHARACTERS = "\u2800\U00016fe4\U0001d159"
# A joiner or selector belongs to the character before it: in Indian scripts it is part of the spelling, after
# an emoji it selects how the emoji is drawn.
_PICTURES = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff\u3030"
    "\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_SPELLING = re.compile(
    f"(?<=[{INDIC}])[\u200c\u200d]|(?<=[{_PICTURES}])\ufe0f|(?<=[0-9#*])\ufe0f(?=\u20e3)"
    f"|(?:(?<=[{_PICTURES}])|(?<=[{_PICTURES}]\ufe0f))\u200d(?=[{_PICTURES}])"
)
_INVISIBLE = re.compile(f"[{IGNORABLE_CHARACTERS}{BLANK_CHARACTERS}]")
_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cn", "Zs", "Zl", "Zp"})
_PLAIN = re.compile(r"[\n\t -~]*")
_RTL = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]")
_RTL_WORD = re.compile(rf"[^\s<>]*{_RTL.pattern}[^\s<>]*")


def mark_invisible(text: str) -> str:
    """Replace each invisible character with its code point."""
    if _PLAIN.fullmatch(text):
        return text
    spelling = {match.start() for match in _SPELLING.finditer(text)}
    return "".join(char if index in spelling else _marked(char) for index, char in enumerate(text))


def isolate_rtl(html: str) -> str:
    """Wrap right-to-left words in <bdi>, so that they do not reorder the text around them."""
    return _RTL_WORD.sub(lambda word: f"<bdi>{word[0]}</bdi>", html)


def _marked(char: str) -> str:
    if char in "\n\t " or not (_INVISIBLE.match(char) or unicodedata.category(char) in _CATEGORIES):
        return char
    return f"‹U+{ord(char):04X}›"
