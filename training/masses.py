"""The probability of a code: the network's, or a fixed mass where no training row could teach it.

`other` has the Good-Turing mass (singletons + 1) / (n + K + 1) whatever the network says (Good
1953), unless training rows hold it. `missing` has 1 / (n + K + 1) unless training rows hold it. The
network's softmax shares what those leave. Codes are in the order of the values, then `other`, then
`missing`.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .arrays import Array, register_buffers, take, where

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MASKED = -1e9
"""Added to the logit of a code that is not drawn now."""
NEVER = 4 * MASKED
"""Added to the logit of a code that is never drawn: it loses even where all other codes are
MASKED."""


class Law(Protocol):
    """What a column's law says of its codes: the number of `known` ones, the rows of each
    (`counts`), of `other` and of `missing`, and how many values one row holds (`single`).

    `names_others`: whether `other` may be drawn, as a category that is not too rare. If
    `always_drawn`, a column whose codes are all too rare is drawn all the same.
    """

    @property
    def known(self) -> int: ...
    @property
    def counts(self) -> Integers: ...
    @property
    def others(self) -> int: ...
    @property
    def missing(self) -> int: ...
    @property
    def single(self) -> int: ...
    @property
    def names_others(self) -> bool: ...
    @property
    def always_drawn(self) -> bool: ...


class Masses(nn.Module):
    """The probabilities of all columns' codes; C codes of d columns in one row.

    Buffers: `start` int64[d], where a column's codes begin among the C. `learned` bool[C]: whether
    the network gives the code's probability. `log_mass` float[C]: log of the fixed masses, and of
    what they leave to the learned codes. `drawn` float[C]: what is added to the logits to draw (0,
    NEVER for codes that never are). `rarity` float[C]: see `rarities`. `other` int64[d]: the code
    of what the training rows do not show; `missing` is the next one, and `hidden` int64[d] the one
    after that, which stands for a cell that is not shown.
    """

    start: Tensor
    learned: Tensor
    log_mass: Tensor
    drawn: Tensor
    rarity: Tensor
    other: Tensor
    hidden: Tensor

    def __init__(self, laws: Sequence[Law], follows: Sequence[bool], rare: int) -> None:
        """`follows` says of each column whether it is missing exactly where the one before it
        is."""
        super().__init__()
        self.sizes = tuple(law.known + 2 for law in laws)
        columns = [_column(law, after, rare) for law, after in zip(laws, follows, strict=True)]
        learned, log_mass, drawn, rarity = (
            np.concatenate(codes) for codes in zip(*columns, strict=True)
        )
        register_buffers(
            self,
            start=torch.tensor(np.cumsum([0, *self.sizes[:-1]])),
            learned=torch.from_numpy(learned),
            log_mass=torch.from_numpy(log_mass).float(),
            drawn=torch.from_numpy(drawn).float(),
            rarity=torch.from_numpy(rarity),
            other=torch.tensor(self.sizes) - 2,
            hidden=torch.tensor(self.sizes),
        )

    @property
    def even(self) -> Tensor:
        """Logits float[C] to start from: equal for the codes to be learned, MASKED for the others;
        no gradient moves those."""
        return torch.where(self.learned, 0.0, MASKED)

    @property
    def may_be_missing(self) -> Tensor:
        """bool[d]: columns that are drawn as missing, at times or always."""
        return torch.stack([codes[-1] > MASKED / 2 for codes in self.drawn.split(self.sizes)])

    @property
    def may_be_filled(self) -> Tensor:
        """bool[d]: columns that are drawn as missing at times, but not always."""
        columns = [codes > MASKED / 2 for codes in self.drawn.split(self.sizes)]
        return torch.stack([codes[-1] & codes[:-1].any() for codes in columns])

    def log_prob(self, logits: Sequence[Tensor], codes: Tensor) -> Tensor:
        """log p(code) float[m, d] of codes int64[m, d] from each column's logits float[m, K_j].

        A softmax over the learned codes (the others' logits are MASKED, as in `even`), and fixed
        masses for the rest.
        """
        columns = zip(logits, codes.unbind(1), strict=True)
        learned = [-F.cross_entropy(scores, code, reduction="none") for scores, code in columns]
        return self.with_fixed(torch.stack(learned, 1), codes)

    def with_fixed(self, learned: Array, codes: Array) -> Array:
        """log p(code) [m, d] from the log-softmax of the logits at the codes [m, d]."""
        code = codes + self.start
        return where(take(self.learned, code), learned, 0.0) + take(self.log_mass, code)


def _column(law: Law, follows: bool, rare: int) -> tuple[NDArray[np.bool_], Floats, Floats, Floats]:
    """Which of a column's codes are learned, their log-masses, what is added to draw them, and
    their rarities."""
    fixed = fixed_masses(law, follows)
    learned = np.array([code not in fixed for code in range(law.known + 2)])
    return (
        learned,
        _log_masses(law, fixed, follows),
        _drawn(law, learned, rare),
        rarities(law, fixed, follows),
    )


def fixed_masses(law: Law, follows: bool) -> dict[int, float]:
    """The codes whose probability is not learned, with their masses."""
    other = law.known
    missing = law.known + 1
    total = int(law.counts.sum()) + law.missing + law.others + law.known + 1
    fixed = {} if law.others else {other: (law.single + 1) / total}
    if follows:
        fixed[missing] = 0.0
    elif not law.missing:
        fixed[missing] = 1 / total
    if law.known == 0 and not law.missing:
        fixed[other] = 1.0 - fixed[missing]
    return fixed


def _log_masses(law: Law, fixed: dict[int, float], follows: bool) -> Floats:
    """float64[K]. A column that follows is missing for certain where the one before it is, and
    never else."""
    rest = max(1 - sum(fixed.values()), 1e-12)
    masses = [fixed.get(code, rest) for code in range(law.known + 2)]
    if follows:
        masses[-1] = 1.0
    return np.log(masses)


def rarities(law: Law, fixed: dict[int, float], follows: bool) -> Floats:
    """float64[K]: log of each code's share of the rows that hold it or a code no more frequent.

    −log p(code | row) plus the rarity compares costs of columns of different widths: where the row
    says nothing of its code, it is −log P(a code at most as frequent), whatever the number of
    codes. A column that follows is missing for certain where the one before it is, so that says
    nothing.
    """
    rows = np.array([*law.counts, law.others, law.missing], dtype=np.float64)
    masses = np.maximum(rows, 0.5) / max(1.0, rows.sum())
    for code, mass in fixed.items():
        masses[code] = mass
    masses /= masses.sum()
    upto = np.array([masses[masses <= mass * (1 + 1e-9)].sum() for mass in masses])
    rarity = np.log(np.maximum(masses, 1e-300) / np.maximum(upto, 1e-300))
    if follows:
        rarity[-1] = 0.0
    return np.asarray(rarity)


def _drawn(law: Law, learned: NDArray[np.bool_], rare: int) -> Floats:
    """float64[K]: see Masses. Codes that fewer than `rare` rows hold are never drawn."""
    is_frequent = np.array([*(law.counts >= rare), law.names_others, law.missing >= rare])
    drawn = np.where(learned & is_frequent, 0.0, NEVER)
    if (drawn > NEVER).any():
        return drawn
    if law.always_drawn and learned.any():
        return np.where(learned, 0.0, NEVER)
    drawn[-1] = 0.0 if learned[-1] else -MASKED
    return drawn
