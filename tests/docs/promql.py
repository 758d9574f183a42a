"""Which metrics an expression of PromQL names. Strict: what is not understood is an error, not overlooked."""

import re

TOKEN = re.compile(
    r"""\s+ | (?P<string>"(?:[^"\\]|\\.)*") | (?P<number>\d+(?:\.\d+)?(?:[smhdw])?)
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*) | (?P<sign>[-+*/%^(){}\[\],]|[=!<>]=?~?|=~|!~)""",
    re.X,
)
WORDS = {
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
    "bool",
    "offset",
}
FUNCTIONS = {"sum", "max", "min", "avg", "count", "rate", "increase", "histogram_quantile", "absent", "time"}
LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


def tokens(expression: str) -> list[str]:
    """Its tokens. Raises ValueError."""
    found, at = [], 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"not PromQL at {expression[at : at + 20]!r}")
        if not match[0].isspace():
            found.append(match[0])
        at = match.end()
    return found


def selectors(expression: str, *, with_negated: bool = True) -> list[tuple[str, dict[str, str]]]:
    """Each metric that it names, with the labels that it asks of it, or wants not to be so. Raises ValueError."""
    words, found, at = tokens(expression), [], 0
    if words.count("(") != words.count(")") or words.count("{") != words.count("}"):
        raise ValueError(f"brackets do not close: {expression}")
    while at < len(words):
        word, after = words[at], words[at + 1] if at + 1 < len(words) else ""
        at += 1
        if word in LISTS:
            at = words.index(")", at) + 1
        elif not re.match(r"[a-zA-Z_:]", word) or word in WORDS:
            continue
        elif after in ("(", "by", "without"):
            if word not in FUNCTIONS:
                raise ValueError(f"{word} is no function that we know")
        elif after == "{":
            end = words.index("}", at)
            inside = [part for part in words[at + 1 : end] if part != ","]
            matchers = [inside[i : i + 3] for i in range(0, len(inside), 3)]
            kept = [one for one in matchers if with_negated or not one[1].startswith("!")]
            found.append((word, {label: value.strip('"') for label, _, value in kept}))
            at = end + 1
        else:
            found.append((word, {}))
    return found


def grouped(expression: str) -> set[str]:
    """The labels by which it groups."""
    return {
        one for inside in re.findall(r"\bby \(([^)]*)\)", expression) for one in re.findall(r"\w+", inside)
    }
