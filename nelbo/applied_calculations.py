"""Rules that calculate a column from others, applied to rows: sums, products, the time between two
datetimes, parts of datetimes, and polynomials with a rest."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nelbo.applied_rules import AppliedRule, Spans
from nelbo.datetime_parts import HOUR, MINUTE, local, part_of, with_part
from nelbo.polynomials import polynomial_terms
from nelbo.rules import Rule

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

MOST_TIMES = 20_000
"""Maximum number of times whose parts are tried."""


class AppliedSum(AppliedRule):
    """A sum of the sources, each times its factor, 1 or -1: `signs`."""

    is_monotone = True

    def __init__(
        self, rule: Rule, target: int, sources: Sequence[int], signs: Sequence[float]
    ) -> None:
        super().__init__(rule, target, sources)
        self._signs = np.array(signs, dtype=np.float64)

    def follow(self, x: Floats) -> Floats:
        return _rounded(x[:, self.sources] @ self._signs, self.rule.decimals)

    def back(self, x: Floats, at: int) -> Floats:
        rest = x[:, self.target] - self._others(x, at)
        return _rounded(np.asarray(rest / self._signs[at]), self.rule.decimals)

    def _others(self, x: Floats, at: int) -> Floats:
        return np.asarray(x[:, np.delete(self.sources, at)] @ np.delete(self._signs, at))


class AppliedElapsed(AppliedSum):
    """The time between two datetimes in units of this number of microseconds."""

    def __init__(self, rule: Rule, target: int, sources: Sequence[int], unit: float) -> None:
        super().__init__(rule, target, sources, (1.0, -1.0))
        self._unit = unit

    def follow(self, x: Floats) -> Floats:
        return _rounded(x[:, self.sources] @ self._signs / self._unit, self.rule.decimals)

    def back(self, x: Floats, at: int) -> Floats:
        time = np.rint(x[:, self.target] * self._unit)
        return np.asarray((time - self._others(x, at)) / self._signs[at])


class AppliedProduct(AppliedRule):
    """The product of two sources or, if `divided`, the first by the second."""

    is_monotone = True

    def __init__(self, rule: Rule, target: int, sources: Sequence[int], divided: bool) -> None:
        super().__init__(rule, target, sources)
        self._divided = divided

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        divisor = sources[1]
        if self._divided and ((divisor[:, 0] <= 0) & (divisor[:, 1] >= 0)).any():
            return True
        return super().may_hold(sources, target)

    def follow(self, x: Floats) -> Floats:
        first, second = x[:, self.sources].T
        return _rounded(
            _ratio(first, second) if self._divided else first * second, self.rule.decimals
        )

    def back(self, x: Floats, at: int) -> Floats:
        target, other = x[:, self.target], x[:, self.sources[1 - at]]
        if not self._divided:
            return _ratio(target, other)
        return target * other if at == 0 else _ratio(other, target)


class AppliedPart(AppliedRule):
    """A part of a datetime in local time."""

    def __init__(self, rule: Rule, target: int, source: int, part: str) -> None:
        super().__init__(rule, target, [source])
        self._part = part

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        """By times so close together that no part is left out."""
        step = MINUTE if self._part == "minute" else HOUR
        (spans,) = sources
        if not (np.diff(spans).sum() <= MOST_TIMES * step):
            return True
        times = [np.append(np.arange(low, high, step), high) for low, high in spans]
        points = np.repeat(np.concatenate(times)[:, None], 2, axis=1)
        return super().may_hold([points], target)

    def follow(self, x: Floats) -> Floats:
        return part_of(local(x[:, self.sources[0]], self.rule.offsets), self._part)

    def back(self, x: Floats, at: int) -> Floats:
        """The datetime with this part in the place of its own; on a day that the month has."""
        time = x[:, self.sources[0]]
        moved = local(time, self.rule.offsets)
        return time + with_part(moved, self._part, x[:, self.target]) - moved


class AppliedNearly(AppliedRule):
    """A number that follows from others but for a rest, which is drawn. No row breaks it."""

    def __init__(self, rule: Rule, target: int, sources: Sequence[int]) -> None:
        super().__init__(rule, target, sources)
        self._curve = rule.curve

    def may_hold(self, sources: Sequence[Spans], target: Spans) -> bool:
        return True

    def broken(self, x: Floats) -> Booleans:
        return np.zeros(len(x), dtype=np.bool_)

    def follow(self, x: Floats) -> Floats:
        if self._curve is None:
            return super().follow(x)
        centre, scale = np.array(self._curve.centre), np.array(self._curve.scale)
        values = polynomial_terms(x[:, self.sources], centre, scale) @ np.array(self._curve.weights)
        return np.asarray(values)

    def with_rest(self, values: Floats, u: Floats) -> Floats:
        if self._curve is None:
            return values
        left = np.array(self._curve.left)
        values = values + np.interp(u, np.linspace(0, 1, len(left)), left)
        return _rounded(
            np.clip(values, self._curve.lowest, self._curve.highest), self.rule.decimals
        )


def _ratio(first: Floats, second: Floats) -> Floats:
    """NaN where the second is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = first / second
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _rounded(values: Floats, decimals: int | None) -> Floats:
    return values if decimals is None else np.round(values, decimals)
