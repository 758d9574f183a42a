"""The metrics that a PromQL expression uses. Unknown syntax is an error."""

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
    """The tokens of the expression, without spaces. Raises ValueError."""
    result = []
    at = 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"not PromQL at {expression[at : at + 20]!r}")
        if not match[0].isspace():
            result.append(match[0])
        at = match.end()
    return result


def selectors(expression: str, *, with_negated: bool = True) -> list[tuple[str, dict[str, str]]]:
    """Each metric with the label values that it must have, or must not have if `with_negated`. Raises
    ValueError.
    """
    parts = tokens(expression)
    selected: list[tuple[str, dict[str, str]]] = []
    at = 0
    if parts.count("(") != parts.count(")") or parts.count("{") != parts.count("}"):
        raise ValueError(f"unbalanced brackets: {expression}")
    while at < len(parts):
        word = parts[at]
        after = parts[at + 1] if at + 1 < len(parts) else ""
        at += 1
        if word in LISTS:
            at = parts.index(")", at) + 1
        elif not re.match(r"[a-zA-Z_:]", word) or word in WORDS:
            continue
        elif after in ("(", "by", "without"):
            if word not in FUNCTIONS:
                raise ValueError(f"{word} is not a known function")
        elif after == "{":
            end = parts.index("}", at)
            inside = [part for part in parts[at + 1 : end] if part != ","]
            matchers = [inside[i : i + 3] for i in range(0, len(inside), 3)]
            kept = [matcher for matcher in matchers if with_negated or not matcher[1].startswith("!")]
            selected.append((word, {label: value.strip('"') for label, _, value in kept}))
            at = end + 1
        else:
            selected.append((word, {}))
    return selected


def grouped(expression: str) -> set[str]:
    """The labels of its `by` clauses."""
    return {
        label
        for inside in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in re.findall(r"\w+", inside)
    }
