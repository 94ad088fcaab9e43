"""The examples and the tree of the errors say what the code says."""

import re

import pytest

from nelbo import errors
from nelbo.errors import MissingExtra, NelboError, problem_types
from tests.messages import is_said

CLASSES = [error for error in problem_types().values() if error is not MissingExtra]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.code)
def test_the_example_of_an_error_is_a_message_that_the_code_raises(
    error: type[NelboError],
) -> None:
    assert is_said(error.__name__, error.example)


def test_the_example_of_a_missing_extra_is_what_its_class_says() -> None:
    assert MissingExtra("nelbo train", "training").message == MissingExtra.example


def test_no_error_is_without_an_example_of_its_own() -> None:
    examples = [error.example for error in problem_types().values()]
    assert len(set(examples)) == len(examples)


def test_a_message_that_the_code_does_not_raise_is_no_example() -> None:
    assert not is_said("NotFound", "no model called 'adlut'")
    assert not is_said("Conflict", errors.NotFound.example)
    assert not is_said("Gone", "anything")


def test_the_tree_shows_every_error_below_its_parent_with_its_status() -> None:
    parents = ["NelboError"]
    shown = set()
    lines = re.findall(r"^    ([│├└─ ]*)(\w+) +(\d+|on)", errors.__doc__ or "", re.MULTILINE)
    for branch, name, status in lines:
        depth = len(branch) // 4
        parents[depth:] = [name]
        shown.add((parents[depth - 1] if depth else "", name, status))
    assert shown == {
        (
            "" if error is NelboError else error.__mro__[1].__name__,
            error.__name__,
            "on" if error is MissingExtra else str(error.status),
        )
        for error in problem_types().values()
    }
