"""Ids of jobs, files and versions."""

import time
import uuid

from nelbo.jobs import new_id


def test_ids_sort_by_the_time_they_were_made_also_within_a_millisecond() -> None:
    ids = []
    for _ in range(2_000):
        ids.append(new_id())
        began = time.time_ns()
        while time.time_ns() < began + 1_000:  # as long as anything takes that stores an id
            pass
    assert ids == sorted(set(ids))
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in ids} == {(7, uuid.RFC_4122)}
