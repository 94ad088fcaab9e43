"""The messages of errors as the source says them, to hold examples against."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("nelbo", "api", "worker")
BY_STATUS = {408: "TooSlow", 413: "TooLarge"}
"""Errors that the API raises as an HTTPException of this status, where Starlette wants one."""

LEAST_LETTERS = 12


def is_said(error: str, message: str) -> bool:
    """Whether some call makes an error of this class with such a message."""
    return any(pattern.fullmatch(message) for pattern in _patterns()[error])


@cache
def _patterns() -> dict[str, list["re.Pattern[str]"]]:
    """For each name that is called the texts of its calls, with anything for what is filled in."""
    patterns: dict[str, list[re.Pattern[str]]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name, text in _calls(ast.parse(path.read_text("utf-8"))):
                if (pattern := _pattern(text)) is not None:
                    patterns.setdefault(name, []).append(pattern)
    return patterns


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The calls inside of functions, where errors are raised: an example of a route is none."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in (part for statement in function.body for part in ast.walk(statement)):
            match node:
                case ast.Call(
                    func=ast.Name(id="HTTPException"), args=[ast.Constant(value=int(status)), text]
                ):
                    yield BY_STATUS.get(status, ""), text
                case ast.Call(func=ast.Name(id=name), args=[text, *_]):
                    yield name, text


def _pattern(text: ast.expr) -> "re.Pattern[str] | None":
    """None where there are too few words, which would be anyone's."""
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    words = [str(part.value) if isinstance(part, ast.Constant) else None for part in parts]
    if sum(len(word) for word in words if word is not None) < LEAST_LETTERS:
        return None
    return re.compile("".join(".+" if word is None else re.escape(word) for word in words))
