"""How dense the code is: size of functions, long lines and tuple assignments of each package.

    python -m tests.benchmarks.house [FOLDER ...]

A function's size is the number of tokens in its body: names, operators, numbers and strings.
Signature, docstring, comments and layout do not count, so that packing a function does not make it
smaller. A tuple assignment has several targets and several values (`a, b = 1, 2`); unpacking the
results of one call is none.
"""

import argparse
import ast
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LONG = 100
"""Largest number of characters in a line."""
COUNTED = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)
PACKAGES = ("nelbo", "api", "worker", "training", "tests")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Density:
    """The measures of some files. `functions` are sizes in tokens by place, the largest first."""

    files: int
    lines: int
    long_lines: int
    functions: list[tuple[int, str]]
    assignments: int
    tuple_assignments: int

    def __str__(self) -> str:
        sizes = [size for size, _ in self.functions] or [0]
        share = self.tuple_assignments / max(1, self.assignments)
        return (
            f"{self.files:6} {self.lines:7,} {len(self.functions):10,}"
            f" {np.median(sizes):14.0f} {np.quantile(sizes, 0.9):4.0f} {max(sizes):6}"
            f" {self.long_lines:12} {share:7.1%}"
        )


HEAD = (
    "package      files   lines  functions  tokens median   p90    max   long lines  tuple assign."
)


def measure(paths: list[Path]) -> Density:
    """The measures of Python files together."""
    lines = [line for path in paths for line in path.read_text("utf-8").splitlines()]
    functions = [function for path in paths for function in functions_of(path)]
    assignments = [node for path in paths for node in assignments_of(path)]
    return Density(
        files=len(paths),
        lines=len(lines),
        long_lines=sum(len(line) > LONG for line in lines),
        functions=sorted(functions, reverse=True),
        assignments=len(assignments),
        tuple_assignments=sum(is_tuple_assignment(node) for node in assignments),
    )


def functions_of(path: Path) -> Iterator[tuple[int, str]]:
    """Size in tokens and place of each function; a function inside another counts in both."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type in COUNTED]
    lines = np.array([token.start[0] for token in tokens])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, Function):
            documented = ast.get_docstring(node) is not None
            first = node.body[documented] if documented < len(node.body) else node.body[0]
            inside = (lines >= first.lineno) & (lines <= (node.end_lineno or first.lineno))
            yield int(inside.sum()), f"{path}:{node.lineno} {node.name}"


def assignments_of(path: Path) -> list[ast.Assign]:
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]


def is_tuple_assignment(node: ast.Assign) -> bool:
    return isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(p) for p in PACKAGES])
    parser.add_argument("--largest", type=int, default=0, help="print the N largest functions")
    options = parser.parse_args()
    print(HEAD)
    for folder in options.folders:
        density = measure(sorted(folder.rglob("*.py")))
        print(f"{folder!s:11} {density}")
        for size, place in density.functions[: options.largest]:
            print(f"    {size:5} {place}")


if __name__ == "__main__":
    main()
