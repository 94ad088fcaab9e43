"""The year, month, day, hour, minute and weekday of datetimes, in local time where there is one.

Times are float64[n] in microseconds since the epoch, NaN where missing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

DAY, HOUR, MINUTE, SECOND = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000
"""Microseconds."""


def part_of(times: Floats, part: str) -> Floats:
    """float64[n]: the year, month, day, hour, minute or weekday (Monday is 0) of times in
    microseconds since the epoch; NaN for NaN."""
    present = ~np.isnan(times)
    micros = np.where(present, times, 0).astype(np.int64)
    match part:
        case "hour":
            values = micros % DAY // HOUR
        case "minute":
            values = micros % HOUR // MINUTE
        case "weekday":
            values = (micros // DAY + 3) % 7  # 1970 began on a Thursday
        case _:
            values = _in_calendar(micros)[part]
    return np.where(present, values, np.nan)


def with_part(times: Floats, part: str, values: Floats) -> Floats:
    """Times in microseconds since the epoch with another year, month, day, hour, minute or weekday;
    in a month that lacks the day, its last one. NaN where one of the two is missing."""
    present = ~np.isnan(times) & ~np.isnan(values)
    micros = np.where(present, times, 0).astype(np.int64)
    own = np.where(present, part_of(micros.astype(np.float64), part), 0).astype(np.int64)
    new = np.where(present, values, own).astype(np.int64)
    unit = {"hour": HOUR, "minute": MINUTE, "day": DAY, "weekday": DAY}.get(part)
    if unit:
        return np.where(present, micros + (new - own) * unit, np.nan)

    calendar = _in_calendar(micros)
    month = (calendar["year"] - 1970) * 12 + calendar["month"] - 1
    month += (new - own) * (12 if part == "year" else 1)
    first, after = (
        one.astype("datetime64[M]").astype("datetime64[D]") for one in (month, month + 1)
    )
    day = np.minimum(calendar["day"], (after - first).astype(np.int64))
    moved = (first.astype(np.int64) + day - 1) * DAY + micros % DAY
    return np.where(present, moved, np.nan)


def local(times: Floats, offsets: Sequence[tuple[float, float]]) -> Floats:
    """Times in microseconds since the epoch, moved by the offset that holds at each; see Rule."""
    if not offsets:
        return times
    since, by = np.array(offsets).T
    at = np.searchsorted(since, np.nan_to_num(times), side="right") - 1
    return np.asarray(times + by[np.maximum(at, 0)])


def _in_calendar(micros: Integers) -> dict[str, Integers]:
    days = (micros // DAY).astype("datetime64[D]")
    months = days.astype("datetime64[M]")
    years = days.astype("datetime64[Y]")
    return {
        "year": years.astype(np.int64) + 1970,
        "month": (months - years.astype("datetime64[M]")).astype(np.int64) + 1,
        "day": (days - months.astype("datetime64[D]")).astype(np.int64) + 1,
    }
