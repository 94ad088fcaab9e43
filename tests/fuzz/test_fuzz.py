"""Each reader takes some hundreds of changed inputs, and all that a fault once came of; the fuzzer
itself finds faults."""

import contextlib
from pathlib import Path

import pytest

from nelbo.errors import NelboError
from tests.fuzz.campaign import fuzz
from tests.fuzz.child import FOUND
from tests.fuzz.readers import READERS

INPUTS = 200


@pytest.mark.parametrize("name", READERS)
def test_a_reader_answers_or_refuses_whatever_it_is_sent(name: str, tmp_path: Path) -> None:
    outcome = fuzz(name, INPUTS, seed=1, folder=tmp_path / "fuzz", guided=False)
    assert outcome.faults == {}
    assert outcome.answered + outcome.refused == outcome.done == INPUTS
    assert outcome.answered > 10
    assert outcome.refused > 10


@pytest.mark.parametrize(
    "path", sorted(FOUND.glob("*/*")), ids=lambda path: f"{path.parent.name}: {path.name}"
)
def test_what_a_fault_once_came_of_is_answered_or_refused(path: Path, tmp_path: Path) -> None:
    with contextlib.suppress(NelboError):
        READERS[path.parent.name].read(path.read_bytes(), tmp_path)


def test_the_fuzzer_finds_and_keeps_what_breaks_each_of_its_rules(tmp_path: Path) -> None:
    outcome = fuzz("faulty", 50, seed=1, folder=tmp_path / "fuzz", guided=False)
    assert {fault.partition(".py:")[0] for fault in outcome.faults} == {
        "KeyError at tests/fuzz/faulty",
        "ended by SIGSEGV",
        "took too much processor time",
        "took too much memory",
        "MemoryError at tests/fuzz/faulty",
        "PermissionError at tests/fuzz/faulty",
        "wrote beside its folder",
    }
    assert outcome.done == 50
    assert {path.read_bytes() for path in (tmp_path / "fuzz" / "found").iterdir()} == {
        bytes([at]) for at in range(7)
    }
