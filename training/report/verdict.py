"""The verdict in words: are the columns, their pairs and the rows as a whole like the real ones?"""

from dataclasses import dataclass

from ..evaluate import Evaluation
from . import words
from .figures import Marginal, Pair

NEAR = 5.0
"""A column looks like the real one if its error exceeds the floor by at most this, in percent."""
UNUSABLE = 25.0
"""A column cannot be used if its error exceeds the floor by more than this."""
NAMED = 5
DETECTED = ((0.6, "hardly tells"), (0.75, "partly tells"), (0.9, "mostly tells"))
DECIDED = 0.05
"""Smallest difference of the AUC without constant columns that is worth a sentence."""
ALWAYS = "nearly always tells"


@dataclass(frozen=True)
class Verdict:
    """A sentence or two for each question."""

    columns: str
    pairs: str
    rows: str


def verdict(evaluation: Evaluation, marginals: list[Marginal], pairs: list[Pair]) -> Verdict:
    """Of all marginals and pairs, in the order of `figures.pairs`."""
    return Verdict(
        columns=_of_columns(marginals),
        pairs=_of_pairs(pairs),
        rows=_of_rows(evaluation.metrics),
    )


def _of_columns(marginals: list[Marginal]) -> str:
    unusable = [one for one in marginals if one.constant or one.off - one.floor > UNUSABLE]
    off = [one for one in marginals if one.off - one.floor > NEAR and one not in unusable]
    near = len(marginals) - len(unusable) - len(off)
    sentences = [f"{_of_all(near, len(marginals))} look like the real ones."]
    if off:
        sentences.append(f"Somewhat off: {_named(off)}.")
    if unusable:
        sentences.append(f"Do not use the generated values of {_named(unusable)}.")
    return " ".join(sentences)


def _of_pairs(pairs: list[Pair]) -> str:
    if not pairs:
        return "The table has a single column."
    near = sum(pair.agrees for pair in pairs)
    agreement = f"{_of_all(near, len(pairs))} go together as in the real table"
    worst = pairs[0]
    if worst.agrees:
        return f"{agreement}: no association differs by more than {worst.difference:.2f}."
    names = " and ".join(words.shown(name, 40) for name in worst.columns)
    return (
        f"{agreement}. The worst pair is {names}: its association is {words.signed(worst.real)} in"
        f" real rows and {words.signed(worst.synthetic)} in generated ones."
    )


def _of_rows(metrics: dict[str, float]) -> str:
    auc = metrics.get("detect_auc")
    if auc is None:
        return "Not measured."
    tells = next((tells for limit, tells in DETECTED if auc < limit), ALWAYS)
    sentence = (
        f"A classifier {tells} generated rows from real ones. Of one generated and one real row, it"
        f" picks the generated one in {_of_100(auc)} cases; by chance it would in 50."
    )
    varied = metrics.get("detect_auc_varied", auc)
    if auc - varied < DECIDED:
        return sentence
    return (
        f"{sentence} Columns that are always the same decide this: without them, it does in"
        f" {_of_100(varied)}."
    )


def _of_100(auc: float) -> str:
    return f"{100 * auc:.0f} of 100"


def _of_all(near: int, count: int) -> str:
    if near == count:
        return "All"
    return f"{words.with_commas(near)} of {words.with_commas(count)}"


def _named(marginals: list[Marginal]) -> str:
    """The columns that are furthest off, and the number of the others."""
    worst = sorted(marginals, key=lambda marginal: -marginal.off)[:NAMED]
    texts = [_off(marginal) for marginal in worst]
    more = len(marginals) - len(worst)
    if more:
        texts.append(f"{words.with_commas(more)} more")
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _off(marginal: Marginal) -> str:
    if marginal.constant:
        reason = "always missing" if marginal.missing[1] == 1 else "always the same"
    else:
        reason = f"{words.percent(marginal.off)} off"
    return f"{words.shown(marginal.column.name, 40)} ({reason})"
