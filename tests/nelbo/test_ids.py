"""Ids of jobs, files, versions and changes."""

import time
import uuid

from nelbo.ids import made_at, new_id


def test_ids_sort_by_the_time_they_were_made_also_within_a_millisecond() -> None:
    ids = []
    for _ in range(2_000):
        ids.append(new_id())
        began = time.time_ns()
        while time.time_ns() < began + 1_000:  # as long as anything takes that stores an id
            pass
    assert ids == sorted(set(ids))
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in ids} == {(7, uuid.RFC_4122)}


def test_an_id_says_when_it_was_made() -> None:
    before = time.time()
    moment = made_at(new_id())
    assert moment is not None
    assert before - 0.001 <= moment <= time.time()


def test_a_name_that_is_no_id_of_ours_has_no_time() -> None:
    assert made_at("upload") is None
    assert made_at(str(uuid.uuid4())) is None
