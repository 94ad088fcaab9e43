"""The vocabulary of jobs."""

import pytest

from nelbo.jobs import (
    CHUNK_STATES,
    CHUNK_TRANSITIONS,
    FINAL,
    INTERNAL_KINDS,
    JOB_TRANSITIONS,
    KINDS,
    STATES,
    UNFINISHED,
)


@pytest.mark.parametrize(
    ("states", "transitions"), [(STATES, JOB_TRANSITIONS), (CHUNK_STATES, CHUNK_TRANSITIONS)]
)
def test_every_state_has_its_transitions_and_they_lead_to_states(
    states: tuple[str, ...], transitions: dict[str, frozenset[str]]
) -> None:
    assert set(transitions) == set(states)
    assert set().union(*transitions.values()) <= set(states)


def test_every_unfinished_state_may_end_and_only_a_retry_leaves_an_end() -> None:
    assert {"succeeded", "failed", "cancelled"} == FINAL
    assert {target for state in FINAL for target in JOB_TRANSITIONS[state]} == {"queued"}
    assert all(JOB_TRANSITIONS[state] & FINAL for state in UNFINISHED)


def test_no_kind_is_both_submitted_and_internal() -> None:
    assert not set(KINDS) & set(INTERNAL_KINDS)
