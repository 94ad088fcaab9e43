"""Clauses: the conditions in a text such as "age >= 30 and label in (a, b)", before a schema says
what they mean."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nelbo.encoding import shortened
from nelbo.errors import InvalidInput

EXAMPLES = (
    "label = fraud, label in (a, b), age between 30 and 40, age >= 30, date = 2024-05 or income is"
    " missing"
)

_QUOTED = r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'"
_START = re.compile(
    rf"\s*(?P<name>{_QUOTED}|.+?)\s*"
    r"(?P<operator>!=|<>|==|<=|>=|=|<|>|(?<=\s)not\s+in\s*(?=\()|(?<=\s)in\s*(?=\()"
    r"|(?<=\s)between(?=\s)|(?<=\s)is\s+(?:not\s+)?(?:missing|null)\b)",
    re.IGNORECASE | re.DOTALL,
)
_VALUE = re.compile(rf"\s*(?P<value>{_QUOTED}|.+?)(?=\s+and\s|\s*$)", re.IGNORECASE | re.DOTALL)
_LISTED = re.compile(rf"\s*(?P<value>{_QUOTED}|[^,()]+?)\s*(?P<end>[,)])", re.DOTALL)
_LIST = re.compile(r"\s*\(")
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class Clause:
    """One condition in words: a column's name, an operator, and the texts of its values.

    The operators are =, !=, <, <=, >, >=, in, not in, between, is missing and is not missing.
    """

    text: str
    name: str
    operator: str
    values: tuple[str, ...] = ()


def parse_where(text: str) -> Iterator[Clause]:
    """The conditions in a text, in which "and" joins them. Raises InvalidInput."""
    rest = _single_blanks(text)
    while True:
        start = _START.match(rest)
        if start is None:
            raise InvalidInput(
                f"{shortened(rest.strip())!r} is not a condition; write {EXAMPLES}, and put names"
                " and values with 'and' or a comma in quotes"
            )
        operator = " ".join(start["operator"].lower().split())
        operator = {"==": "=", "<>": "!="}.get(operator, operator.replace("null", "missing"))
        values, behind = _values(operator, rest, start.end())
        joined = _AND.match(rest, behind)
        if joined is None and rest[behind:].strip():
            raise InvalidInput(
                f"{shortened(rest[behind:].strip())!r} follows a condition; join conditions by"
                " 'and', and put values with 'and' or a comma in quotes"
            )
        yield Clause(rest[:behind].strip(), _unquoted(start["name"]), operator, values)
        if joined is None:
            return
        rest = rest[joined.end() :]


def _single_blanks(text: str) -> str:
    """The text with one blank for each white space outside of quotes, so that no search in it takes
    long."""
    parts = re.split(rf"({_QUOTED})", text)
    return "".join(
        part if at % 2 else _BLANKS.sub(" ", part) for at, part in enumerate(parts)
    ).strip()


def _values(operator: str, text: str, at: int) -> tuple[tuple[str, ...], int]:
    """The values behind an operator, and where they end."""
    if operator.startswith("is"):
        return (), at
    values: list[str] = []
    if operator in ("in", "not in"):
        bracket = _LIST.match(text, at)
        assert bracket is not None, "the operator is followed by a bracket"
        at = bracket.end()
        while listed := _LISTED.match(text, at):
            values.append(_unquoted(listed["value"]))
            at = listed.end()
            if listed["end"] == ")":
                return tuple(values), at
        raise InvalidInput(
            f"the list in {shortened(text.strip())!r} does not end; write label in (a, b)"
        )
    for _ in range(2 if operator == "between" else 1):
        joined = _AND.match(text, at) if values else None
        value = _VALUE.match(text, joined.end() if joined else at)
        if value is None or (values and joined is None):
            raise InvalidInput(
                f"the condition {shortened(text.strip())!r} lacks a value; write {EXAMPLES}"
            )
        values.append(_unquoted(value["value"]))
        at = value.end("value")
    return tuple(values), at


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1].replace(text[0] * 2, text[0])
    return text
