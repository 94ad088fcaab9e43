"""One word for one thing: a name of a class has one meaning, and names of values are nouns."""

import ast
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("nelbo", "api", "worker", "training")
NO_NAMES = {"found", "made", "told", "given", "known", "wanted", "place"}
"""They say that something is there, and not what it is."""
SHARED_VERBS = {
    *("check", "command", "describe", "find", "load", "main", "prepare", "read", "run", "tidy"),
    *("work", "write", "concat", "where"),
}
"""Each does the same to another thing; callers name the module too, as in `dates.read`."""
FIELDS_OF_USERS = {("nelbo/commands/doctor.py", "found")}
"""Part of what `nelbo doctor --json` prints."""


def modules() -> dict[str, ast.Module]:
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def test_each_class_name_means_one_thing() -> None:
    classes = Counter(
        node.name
        for module in modules().values()
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, number in classes.items() if number > 1] == []


def test_each_function_name_means_one_thing() -> None:
    """Commands and routes are called as what they call in the layers below."""
    functions = Counter(
        name
        for path, module in modules().items()
        if not path.startswith(("nelbo/commands/", "api/routes/", "nelbo/store/migrations/"))
        for name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
        if not name.startswith("_")
    )
    assert {name for name, number in functions.items() if number > 1} == SHARED_VERBS


def test_names_of_values_are_nouns() -> None:
    names = {
        (path, name)
        for path, module in modules().items()
        for node in ast.walk(module)
        if (name := stored_name(node)) in NO_NAMES
    }
    assert names == FIELDS_OF_USERS


def stored_name(node: ast.AST) -> str | None:
    """The name that a statement stores to, or that a function takes."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            return name
        case ast.arg(arg=name):
            return name
    return None
