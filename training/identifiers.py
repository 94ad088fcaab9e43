"""How identifiers are made, learned from a training table; see nelbo.identifiers.

A column is numbers that go on if at least half of the numbers between its smallest and its largest
one occur. Otherwise its values may have templates: the same length and the same separators, and at
each position the characters that occur there. What is neither is text.
"""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, takewhile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from nelbo.cells import YEARS, texts, times
from nelbo.encoding import missing_in
from nelbo.identifiers import (
    LARGEST_SPACE,
    LONGEST,
    MOST_BUCKETS,
    MOST_TEMPLATES,
    MOST_WORDS,
    Consecutive,
    Identifier,
    Segment,
    Template,
    bucket_of,
)
from nelbo.schema import Column, Schema
from nelbo.spelling.types import type_of

pc: Any = pyarrow.compute
Points = NDArray[np.uint32]
"""Texts of one length as code points, uint32[n, length]."""

DENSE = 0.5
"""Numbers go on if at least this share of those between the smallest and the largest one occur."""
COVERED = 0.9
"""Values have templates if those that enough rows hold cover this share of them."""
OFTEN = 0.99
"""The characters of a position are those that enough rows have, if these are this share of them."""
WITH_DIGITS = 0.8
"""Values of different lengths are words and no pattern if fewer of them hold a digit."""
SPACED = 0.5
"""Values are text if more of them hold a space."""
FEW_WORDS = 64
BITS_PER_BYTE = 6
"""Of base64."""
BUCKETS_IN_ALL = 2**22
"""Maximum number of buckets of all columns of a table together."""
WHOLE_NUMBER = r"^(0|[1-9]\d{0,17}|[1-8]\d{18})$"
"""One below 2^63."""


def learn_identifiers(
    table: pa.Table, schema: Schema, rare: int, room: int
) -> dict[str, Identifier]:
    """The identifiers of the columns that the table has. They take about `room` bytes of the
    manifest at most; columns without room are left empty."""
    columns = [column for column in schema.identifiers if column.name in table.column_names]
    bits = min(BUCKETS_IN_ALL, BITS_PER_BYTE * room // 2)
    most = min(MOST_BUCKETS, 2 ** int(math.log2(max(1, bits // max(1, len(columns))))))
    values = {
        column.name: texts(table.column(column.name).combine_chunks(), missing_in(column, schema))
        for column in columns
    }
    identifiers: dict[str, Identifier] = {}
    for column in columns:
        name = column.name
        equal = (one for one in identifiers if values[one].equals(values[name]))
        source = next(equal, None)
        if source and identifiers[source].same_as is None:
            same = identifiers[source].model_copy(update={"same_as": source, "templates": ()})
            identifiers[name] = same.model_copy(update={"consecutive": None})
        else:
            identifier = _learned(column, values[name], rare, most)
            size = len(json.dumps(identifier.model_dump(mode="json"), indent=6))
            if size > room:
                identifier = Identifier(rows=identifier.rows, missing=identifier.missing)
            identifiers[name] = identifier
            room -= min(room, size)
    return identifiers


def of_free_text(identifiers: Mapping[str, Identifier]) -> Iterator[str]:
    """Notices about identifiers that are not made."""
    for name, identifier in identifiers.items():
        source = identifiers[identifier.same_as] if identifier.same_as else identifier
        if source.is_text:
            yield (
                f"column {name!r} is free text or has no pattern: generated rows leave it empty;"
                " augment and reconstruct copy it from the given rows"
            )


def _learned(column: Column, text: "pa.Array[Any]", rare: int, most: int) -> Identifier:
    present = text.drop_null()
    figures = {"rows": len(present), "missing": text.null_count if text.null_count >= rare else 0}
    if len(present) < max(2, rare):
        return Identifier(**figures)
    lengths = pc.utf8_length(present)
    if pc.max(lengths).as_py() > LONGEST:
        return Identifier(**figures)
    consecutive = _times(present) or _consecutive(present)
    if consecutive:
        return Identifier(**figures, consecutive=consecutive)
    is_whole = _are_whole(present)
    if _is_text(present, lengths) or (_is_number(column) and not is_whole):
        return Identifier(**figures)
    templates = _templates(present, lengths, is_whole, rare, most)
    if not templates:
        return Identifier(**figures)
    longest = pc.max(lengths).as_py()
    return Identifier(**figures, templates=templates, longest=longest, is_whole=is_whole)


def _is_number(column: Column) -> bool:
    kind: Any = type_of(column)
    return kind is not None and pa.types.is_primitive(kind)


def _times(present: "pa.Array[Any]") -> Consecutive | None:
    """Times after the last one, at the largest step that all distances are multiples of; None
    where the values are no times."""
    of_text = times(present, (), None)
    if not of_text.dated.all():
        return None
    micros = of_text.micros
    step = int(np.gcd.reduce(np.diff(np.unique(micros)), initial=0))
    first = int(micros.max()) + step
    if not step or first > YEARS[1]:
        return None
    return Consecutive(first=first, step=step, is_time=True)


def _are_whole(present: "pa.Array[Any]") -> bool:
    """Whether all values are whole numbers as programs write them, which int64 holds."""
    return bool(pc.all(pc.match_substring_regex(present, WHOLE_NUMBER)).as_py())


def _consecutive(present: "pa.Array[Any]") -> Consecutive | None:
    """Numbers after the largest one, with what is before and behind them in all values."""
    if _are_whole(present):
        return _going_on(present.cast(pa.int64()).to_numpy())
    prefix = _common_start(present).rstrip("0123456789")
    suffix = _common_start(pc.utf8_reverse(present))[::-1].lstrip("0123456789")
    digits = pc.utf8_slice_codeunits(present, len(prefix), -len(suffix) if suffix else None)
    if not pc.all(pc.match_substring_regex(digits, r"^\d{1,17}$")).as_py():
        return None
    lengths = pc.min_max(pc.utf8_length(digits)).as_py()
    is_padded = pc.any(pc.match_substring_regex(digits, r"^0\d")).as_py()
    width = lengths["min"] if is_padded or lengths["min"] == lengths["max"] else 1
    numbers = digits.cast(pa.int64()).to_numpy()
    return _going_on(numbers, prefix=prefix, suffix=suffix, width=width)


def _common_start(present: "pa.Array[Any]") -> str:
    """What all texts begin with, which is what the first and the last of them do."""
    first, last = pc.min_max(present).as_py().values()
    pairs = zip(first, last, strict=False)
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _going_on(numbers: NDArray[np.int64], **form: Any) -> Consecutive | None:
    distinct = np.unique(numbers)
    low, high = int(distinct[0]), int(distinct[-1])
    step = int(np.gcd.reduce(np.diff(distinct), initial=0))
    is_dense = step and len(distinct) >= DENSE * ((high - low) // step + 1)
    if not is_dense or len(distinct) < len(numbers) * COVERED or high > 2**62:
        return None
    return Consecutive(first=high + step, step=step, **form)


def _is_text(present: "pa.Array[Any]", lengths: "pa.Array[Any]") -> bool:
    """Whether the values are several words, or words of a language that differ in length."""
    if pc.mean(pc.match_substring_regex(present, r"\s").cast(pa.int8())).as_py() > SPACED:
        return True
    bounds = pc.min_max(lengths).as_py()
    with_digits = pc.mean(pc.match_substring_regex(present, r"\d").cast(pa.int8())).as_py()
    return bool(bounds["min"] < bounds["max"] and with_digits < WITH_DIGITS)


def _templates(
    present: "pa.Array[Any]", lengths: "pa.Array[Any]", is_whole: bool, rare: int, most: int
) -> tuple[Template, ...]:
    """The templates that enough rows have, or none where these are too few rows."""
    groups: list[Points] = []
    for length in np.unique(lengths.to_numpy()).tolist():
        values = present.filter(pc.equal(lengths, length)).to_numpy(zero_copy_only=False)
        groups += _of_one_form(_points(values, length))
    groups = [group for group in groups if len(group) >= max(2, rare) and group.shape[1]]
    groups = sorted(groups, key=len, reverse=True)[:MOST_TEMPLATES]
    has_many_characters = any(len(np.unique(group)) > MOST_WORDS for group in groups)
    if has_many_characters or sum(map(len, groups)) < COVERED * len(present):
        return ()
    return tuple(_template(group, is_whole, rare, most) for group in groups)


def _points(values: NDArray[Any], length: int) -> Points:
    return values.astype(f"U{max(1, length)}").view(np.uint32).reshape(len(values), -1)[:, :length]


def _of_one_form(points: Points) -> Iterator[Points]:
    """The values with the same separators at the same positions."""
    if not points.size:
        return
    separators = np.where(_is_alphanumeric(points), 0, points)
    _, form = np.unique(separators, axis=0, return_inverse=True)
    order = np.argsort(form.ravel(), kind="stable")
    bounds = np.flatnonzero(np.diff(form.ravel()[order])) + 1
    yield from (points[rows] for rows in np.split(order, bounds))


def _is_alphanumeric(points: Points) -> NDArray[np.bool_]:
    distinct, at = np.unique(points, return_inverse=True)
    return np.array([chr(point).isalnum() for point in distinct])[at].reshape(points.shape)


def _template(points: Points, is_whole: bool, rare: int, most: int) -> Template:
    """The template of values of one form."""
    segments: list[Segment] = []
    positions = [np.unique(column, return_counts=True) for column in points.T]
    kinds = [_kind(distinct) for distinct, _ in positions]
    for kind, group in groupby(range(len(positions)), key=kinds.__getitem__):
        at = list(group)
        words = _few_words(points[:, at], rare) if kind != "mixed" and len(at) > 1 else None
        if words:
            segments.append(words)
            continue
        pooled = np.unique(points[:, at])
        segments += (_position(*positions[one], pooled, is_whole and one == 0, rare) for one in at)
    if all(segment.rows for segment in segments):
        segments = _with_digits(segments)
    segments = _within_space(segments)
    return _with_buckets(points, segments, most)


def _kind(distinct: Points) -> str:
    """What the characters at a position are."""
    letters = [chr(point) for point in distinct]
    if len(letters) == 1:
        return "fixed"
    if all(letter.isdigit() for letter in letters):
        return "digits"
    return "letters" if all(letter.isalpha() for letter in letters) else "mixed"


def _few_words(points: Points, rare: int) -> Segment | None:
    """A segment of few words that enough rows hold, where they are fewer than the characters at its
    positions could make; None where they are not."""
    distinct, rows = np.unique(points, axis=0, return_counts=True)
    possible = math.prod(len(np.unique(column)) for column in points.T)
    often = rows >= rare
    is_fixed = len(distinct) == 1
    if not is_fixed and (len(distinct) > FEW_WORDS or 2 * len(distinct) > possible):
        return None
    if rows[often].sum() < COVERED * len(points):
        return None
    words = tuple("".join(map(chr, word)) for word in distinct[often].tolist())
    return Segment(words=words, rows=tuple(rows[often].tolist()))


def _position(
    distinct: Points, rows: NDArray[np.int64], pooled: Points, leads: bool, rare: int
) -> Segment:
    """One position: a fixed character, or the characters that enough rows have there. Where these
    are too few, those of the positions beside it (`pooled`), unless it has far fewer; a whole
    number does not begin with 0."""
    often = distinct[rows >= rare]
    if rows[rows >= rare].sum() < OFTEN * rows.sum():
        often = distinct if 2 * len(distinct) <= len(pooled) else pooled
    characters = tuple(chr(point) for point in often.tolist() if not leads or chr(point) != "0")
    characters = characters or ("1",)
    return Segment(words=characters, rows=(1,) if len(characters) == 1 else ())


def _with_digits(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, of which the one with the most words tells values apart."""
    most = max(range(len(segments)), key=lambda at: len(segments[at].words))
    return [
        Segment(words=segment.words) if at == most else segment
        for at, segment in enumerate(segments)
    ]


def _within_space(segments: Sequence[Segment]) -> list[Segment]:
    """The segments, of which no more tell values apart than their number may be: the others are
    drawn."""
    size = 1
    within = []
    for segment in segments:
        count = len(segment.words)
        if not segment.rows and size * count > LARGEST_SPACE:
            within.append(Segment(words=segment.words, rows=(1,) * count))
        else:
            size *= 1 if segment.rows else count
            within.append(segment)
    return within


def _with_buckets(points: Points, segments: Sequence[Segment], most: int) -> Template:
    """The template with the buckets of these values."""
    template = Template(rows=len(points), segments=tuple(segments))
    buckets = min(template.size, most, 2 ** math.ceil(math.log2(max(2, len(points)))))
    used = np.zeros(buckets, dtype=bool)
    used[bucket_of(_numbers(points, segments), template.size, buckets)] = True
    bits = base64.b64encode(np.packbits(used).tobytes()).decode()
    return Template(rows=len(points), segments=tuple(segments), buckets=buckets, used=bits)


def _numbers(points: Points, segments: Sequence[Segment]) -> NDArray[np.uint64]:
    """The numbers of the values that the template has."""
    numbers = np.zeros(len(points), dtype=np.uint64)
    in_space = np.ones(len(points), dtype=bool)
    start, unit = 0, 1
    for segment in segments:
        own = np.ascontiguousarray(points[:, start : start + segment.width])
        start += segment.width
        if segment.rows:
            continue
        words = np.array(segment.words)
        order = np.argsort(words)
        texts_of = own.view(f"U{segment.width}").ravel()
        at = np.searchsorted(words[order], texts_of).clip(max=len(words) - 1)
        digit = order[at]
        in_space &= words[digit] == texts_of
        numbers += digit.astype(np.uint64) * np.uint64(unit)
        unit *= len(words)
    return numbers[in_space]
