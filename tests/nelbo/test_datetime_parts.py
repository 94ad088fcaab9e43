"""A part of a datetime is read and replaced."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nelbo.datetime_parts import part_of, with_part
from nelbo.rules import PARTS


@given(st.floats(-1e15, 1e15), st.sampled_from(PARTS), st.integers(0, 11))
def test_a_part_of_a_datetime_can_be_replaced(time: float, part: str, value: int) -> None:
    new = {"year": 2000 + value, "month": 1 + value, "day": 1 + value, "weekday": value % 7}
    wanted = np.array([float(new.get(part, value))])
    moved = with_part(np.array([np.floor(time)]), part, wanted)
    assert part_of(moved, part) == wanted
