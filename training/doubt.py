"""Doubt: what an exemplar costs if its neighbours alone make it look normal.

Anomalies among the training rows that are alike are each other's nearest exemplars, so they look
normal. Two smooth views of the table see them as they are, because a small cluster cannot change
them: the distance to the nearest fifth of the table, and how far out each value is in its column.
An exemplar is doubted if both views together find it clearly more surprising than its nearest
exemplars do. The doubt is shared among neighbours, because anomalies that matter here are clusters.
Its cost in nats lowers the exemplar's prior probability: rows near it then cost about what the
smooth views say, or more.

Shapes: M exemplars, D number columns, E categorical columns, k neighbours.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

MARGIN = 0.8
"""Nats by which the views may differ from the exemplars without any doubt: a factor of about 2."""
STRENGTH, STRENGTH_PER_SHARE = 2.0, 70.0
"""A surprise that neighbours hide counts twice, and 2 + 70 c times if a share c of the rows is said
to be anomalous."""
SAMPLE, NEAREST_SHARE = 400, 0.2
"""Number of rows that distances are measured to, and the share of the nearest among them that
count: more than a cluster of anomalies can fill."""
FLOOR = 0.01
"""Squared distances far below it count as equal."""
MOST_SURPRISE = 20.0
NEIGHBOUR_SHARE, FEWEST, MOST_NEIGHBOURS = 0.02, 5, 32
CLEAR = 1.0
"""From this hidden surprise on, in nats, a row is said to be doubted."""


def neighbours_for(rows: int) -> int:
    """The number of neighbours that share their doubt: 2 % of the rows, within limits."""
    return min(rows - 1, MOST_NEIGHBOURS, max(FEWEST, round(NEIGHBOUR_SHARE * rows)))


def strength_for(contaminated: float | None) -> float:
    """How many times a hidden surprise counts: 0 where no row is contaminated; None if nobody
    knows."""
    if contaminated == 0:
        return 0.0
    return STRENGTH + STRENGTH_PER_SHARE * (contaminated or 0.0)


def smooth_views(y: Tensor, rarity: Tensor) -> list[Tensor]:
    """Two costs float64[M] of exemplars y float64[M, D], which are in random order. `rarity`
    float64[M] is the sum of −log of the shares of a row's categories."""
    return [_distances(y), _tails(y) + rarity]


def _distances(y: Tensor) -> Tensor:
    """Mean log squared distance to the nearest fifth of a sample of the others."""
    sample = y[:SAMPLE]
    squares = torch.cdist(y, sample).square()
    squares.fill_diagonal_(math.inf)
    nearest = max(1, round(NEAREST_SHARE * (len(sample) - 1)))
    return (squares.topk(nearest, largest=False).values + FLOOR).log().mean(1)


def _tails(y: Tensor) -> Tensor:
    """Sum over the columns of −log of the two-sided tail probability of a value (Li et al. 2022,
    ECOD)."""
    columns = y.T.contiguous()
    ascending = columns.sort(1).values
    below = torch.searchsorted(ascending, columns)
    upto = torch.searchsorted(ascending, columns, right=True)
    rank = (below + upto).double() / (2 * len(y))
    return -(2 * torch.minimum(rank, 1 - rank)).log().sum(0)


def hidden_surprise(cost: Tensor, views: list[Tensor], near: Tensor) -> Tensor:
    """float64[M] in nats: by how much the views find an exemplar more surprising than `cost`
    float64[M] does, its nelbo by the other exemplars. `near` int64[M, k] are its neighbours."""
    own = _Scale.of(cost).surprise(cost)
    seen = [_Scale.of(view).surprise(view).clamp_max(MOST_SURPRISE) for view in views]
    hidden = (torch.stack(seen).mean(0) - MARGIN - own).clamp_min(0)
    return (hidden + hidden[near].sum(1)) / (1 + near.shape[1])


def doubts(cost: Tensor, hidden: Tensor, strength: float) -> Tensor:
    """What each exemplar costs, float64[M] in nats: enough to make it as surprising as it is, plus
    `strength` times its hidden surprise."""
    scale = _Scale.of(cost)
    raised = scale.cost(scale.surprise(cost) + strength * hidden) - cost
    return torch.where(hidden > 0, raised.clamp_min(0), 0.0)


@dataclass(frozen=True)
class _Scale:
    """Costs of rows, made comparable: the surprise at a cost is −log of the share of rows that cost
    more.

    Above the upper quartile the shares follow an exponential tail, whose scale comes from the
    quartile and the median: anomalies in the tail cannot stretch it.
    """

    costs: Tensor
    quartile: float
    nats: float

    @classmethod
    def of(cls, costs: Tensor) -> Self:
        ascending = costs.sort().values
        median, quartile = torch.quantile(ascending, costs.new_tensor([0.5, 0.75])).tolist()
        nats = (quartile - median) / math.log(2)
        if not nats > 0:  # half of the upper rows are equal
            beyond = ascending[ascending > quartile] - quartile
            nats = float(beyond.mean()) if len(beyond) else 1.0
        return cls(ascending, quartile, nats)

    def surprise(self, costs: Tensor) -> Tensor:
        rows = len(self.costs)
        share = (rows + 0.5 - torch.searchsorted(self.costs, costs)) / (rows + 1)
        tail = math.log(4) + (costs - self.quartile) / self.nats
        return torch.where(costs > self.quartile, tail, -share.log())

    def cost(self, surprise: Tensor) -> Tensor:
        rows = len(self.costs)
        index = (rows * -torch.expm1(-surprise)).long().clamp(0, rows - 1)
        tail = self.quartile + self.nats * (surprise - math.log(4))
        counted = self.costs[index].clamp_max(self.quartile)
        return torch.where(surprise > math.log(4), tail, counted)
