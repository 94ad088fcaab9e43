"""The year, month, day, hour, minute and weekday of datetimes, in local time where there is one.

Times are float64[n] in microseconds since the epoch, NaN where missing.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

DAY, HOUR, MINUTE, SECOND = 86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000
"""Microseconds."""
FEW = 256
"""Number of times with which a time zone is tried first."""


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


def offsets_of(part: str, times: Floats, values: Floats) -> tuple[tuple[float, float], ...]:
    """How far local time is from times in UTC, if in some time zone the values are a part of it:
    pairs (from when, by how much)."""
    present = np.flatnonzero(~np.isnan(times + values))
    differ = present[part_of(times[present], part) != values[present]]
    if not len(differ):
        return ()
    few = np.concatenate([some[:: -(-len(some) // FEW)] for some in (differ, present)])
    first, last = float(times[present].min()), float(times[present].max())
    for zone in _zones():
        by = np.array([_offset(zone, time) for time in times[few].tolist()])
        if (part_of(times[few] + by, part) != values[few]).any():
            continue
        offsets = tuple(_changes(zone, first, last))
        if (part_of(local(times[present], offsets), part) == values[present]).all():
            return offsets
    return ()


def _zones() -> Iterator[ZoneInfo]:
    """All time zones that this machine knows, those of continents and cities first."""
    for name in sorted(available_timezones(), key=lambda name: ("/" not in name, name)):
        try:
            yield ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            continue


def _offset(zone: ZoneInfo, micros: float) -> float:
    moment = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
    offset = moment.astimezone(zone).utcoffset()
    return 0.0 if offset is None else offset / timedelta(microseconds=1)


def _changes(zone: ZoneInfo, first: float, last: float) -> Iterator[tuple[float, float]]:
    """When a zone's offset changes, to the second, and to what."""
    days = np.append(np.arange(first, last, DAY), last).tolist()
    offset = _offset(zone, first)
    yield first, offset
    for low, high in pairwise(days):
        after = _offset(zone, high)
        if after != offset:
            while high - low > 1e6:
                middle = np.floor((low + high) / 2e6) * 1e6
                low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
            yield high, after
            offset = after
