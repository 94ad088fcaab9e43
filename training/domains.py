"""Domains: what a fitted model makes in each column, for the manifest."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from nelbo.artifact import Domain
from nelbo.schema import Column

from .categories import Category
from .fields import DAY, MONDAY
from .likelihoods import Likelihoods
from .numbers import Number


def domains(likelihoods: Likelihoods) -> Iterator[tuple[str, Domain]]:
    """The name and the domain of each modelled column."""
    may_be_missing = likelihoods.masses.may_be_missing.tolist()
    position = 0
    for column, laws in zip(likelihoods.schema.modelled, likelihoods.fitted, strict=True):
        yield column.name, _domain(column, laws, likelihoods.rare, may_be_missing[position])
        position += len(laws)


def _domain(
    column: Column, laws: Sequence[Number | Category], rare: int, may_be_missing: bool
) -> Domain:
    """A column that counts from another one has no ends of its own."""
    first = laws[0]
    if isinstance(first, Category):
        never = np.flatnonzero(first.frequent < rare).tolist()
        return Domain(never=tuple(never), missing=may_be_missing)
    if column.since or not first.known:
        return Domain(missing=may_be_missing)
    if len(laws) > 1:
        low = MONDAY + 7 * DAY * first.first
        high = MONDAY + 7 * DAY * (first.last + 1) - column.step
    elif first.field.unit:
        low = first.first * first.field.unit
        high = first.last * first.field.unit
    else:
        low = first.first
        high = math.nextafter(first.last, -math.inf)
    return Domain(low=low, high=max(low, high), missing=may_be_missing)
