"""Text of others as people see it: what is invisible, or turns the direction of reading, is named.

`asha` and `asha` with a zero-width space are two users; U+202E makes what follows read backwards. Lists,
mails and terminals show such a character as ‹U+202E›. What is stored and sent on stays as it is.
"""

import re
import unicodedata

INDIC = "\u0900-\u0dff"
# Default_Ignorable_Code_Point in Unicode's DerivedCoreProperties.txt (14.0), as ranges for a regular
# expression: a font draws none of these. Python's unicodedata has no such property.
IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Ignorable by no list, and drawn as nothing all the same: a blank pattern, a filler, a head of no note.
BLANKS = "\u2800\U00016fe4\U0001d159"
# A joiner or a selector belongs to what it follows: in words of Indian scripts it is spelling, and behind a
# picture it says how the picture is drawn.
_PICTURES = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf\u2934\u2935\u2b00-\u2bff\u3030"
    "\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_SPELLING = re.compile(
    f"(?<=[{INDIC}])[\u200c\u200d]|(?<=[{_PICTURES}])\ufe0f|(?<=[0-9#*])\ufe0f(?=\u20e3)"
    f"|(?:(?<=[{_PICTURES}])|(?<=[{_PICTURES}]\ufe0f))\u200d(?=[{_PICTURES}])"
)
_UNSEEN = re.compile(f"[{IGNORABLE}{BLANKS}]")
_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cn", "Zs", "Zl", "Zp"})
_PLAIN = re.compile(r"[\n\t -~]*")
_FROM_THE_RIGHT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_WORD_FROM_THE_RIGHT = re.compile(rf"[^\s<>]*{_FROM_THE_RIGHT.pattern}[^\s<>]*")


def visible(text: str) -> str:
    """The text with a name in the place of each character that nobody sees."""
    if _PLAIN.fullmatch(text):
        return text
    spelling = {found.start() for found in _SPELLING.finditer(text)}
    return "".join(letter if at in spelling else _shown(letter) for at, letter in enumerate(text))


def isolated(html: str) -> str:
    """A piece of HTML without tags whose words from the right do not move what stands beside them."""
    return _WORD_FROM_THE_RIGHT.sub(lambda word: f"<bdi>{word[0]}</bdi>", html)


def _shown(letter: str) -> str:
    if letter in "\n\t " or not (_UNSEEN.match(letter) or unicodedata.category(letter) in _CATEGORIES):
        return letter
    return f"‹U+{ord(letter):04X}›"
