"""Text of others as people see it: what is invisible, or turns the direction of reading, is named.

`asha` and `asha` with a zero-width space are two users; U+202E makes what follows read backwards. Lists,
mails and terminals show such a character as ‹U+202E›. What is stored and sent on stays as it is.
"""

import re
import unicodedata

INDIC = "\u0900-\u0dff"
# Format and control characters, blanks other than a space, letters that look like none. In words of Indian
# scripts a (non-)joiner behind a letter is spelling.
_SPELLING = re.compile(f"(?<=[{INDIC}])[\u200c\u200d]")
_BLANK_LETTERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
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
    if letter in "\n\t " or not (letter in _BLANK_LETTERS or unicodedata.category(letter) in _CATEGORIES):
        return letter
    return f"‹U+{ord(letter):04X}›"
