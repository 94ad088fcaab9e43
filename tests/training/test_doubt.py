"""A cluster that only its own rows make look normal is doubted; rows of the bulk are not."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nelbo.schema import Column, Schema
from training.doubt import _Scale, doubts, neighbours_for, strength_for
from training.exemplars import Exemplars
from training.likelihoods import Likelihoods

ROWS, COLUMNS = 1_000, 4
TABLE = Schema(columns=tuple(Column(name=f"x{j}", kind="continuous") for j in range(COLUMNS)))


def fitted(numbers: Tensor, contaminated: float | None = None) -> Exemplars:
    codes = torch.empty(len(numbers), 0, dtype=torch.int64)
    likelihoods = Likelihoods.fit(TABLE, numbers.numpy(), codes.numpy())
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(1))
    return Exemplars(likelihoods, numbers[order], codes[order], contaminated)


def normal_rows(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64)


def with_clump(rows: int, distance: float = 5.0) -> Tensor:
    """Normal rows, the first of which are a dense cluster at this distance in each column."""
    numbers = normal_rows(0)
    numbers[:rows] = distance + 0.02 * numbers[:rows]
    return numbers


def priors(rows: int, contaminated: float | None = None) -> tuple[float, float]:
    """Mean prior probability of an exemplar in a cluster of this number of rows and of one outside,
    times M."""
    exemplars = fitted(with_clump(rows), contaminated)
    outermost = exemplars.y.sum(1).argsort(descending=True)
    prior = exemplars.log_prior.exp()[outermost] * ROWS
    return float(prior[:rows].mean()), float(prior[rows:].mean())


@pytest.mark.parametrize("rows", [10, 50, 100])
def test_a_far_cluster_loses_its_prior_and_the_bulk_keeps_it(rows: int) -> None:
    clump, bulk = priors(rows)
    assert clump < 0.01
    assert bulk > 0.99


def test_half_of_the_table_is_no_cluster_of_anomalies() -> None:
    clump, bulk = priors(ROWS // 2)
    assert clump == pytest.approx(bulk, rel=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_of_normal_rows_few_are_doubted(seed: int) -> None:
    exemplars = fitted(normal_rows(seed))
    doubted = exemplars.log_prior < exemplars.log_prior.max() - 1
    assert doubted.double().mean() < 0.03


def test_rows_near_a_doubted_cluster_cost_more_and_others_no_more_than_before() -> None:
    numbers = with_clump(50)
    none = torch.empty(ROWS, 0, dtype=torch.int64)
    doubting, trusting = (
        torch.column_stack(fitted(numbers, share).score(numbers, none)).sum(1)
        for share in (None, 0.0)
    )
    assert (doubting[:50] > trusting[:50] + 10).all()
    assert (doubting[50:] - trusting[50:]).abs().median() < 0.1


def test_without_contamination_every_exemplar_has_the_same_prior() -> None:
    exemplars = fitted(with_clump(50), contaminated=0.0)
    assert exemplars.log_prior.unique().tolist() == [-math.log(ROWS)]


def test_a_larger_share_of_anomalies_is_a_larger_doubt() -> None:
    of_clump = [priors(50, share)[0] for share in (None, 0.01, 0.05, 0.1)]
    assert of_clump == sorted(of_clump, reverse=True)
    assert strength_for(0.0) == 0


def test_doubts_are_costs_that_grow_with_what_is_hidden() -> None:
    cost = normal_rows(2)[:, 0].contiguous()
    nothing = torch.zeros_like(cost)
    assert torch.equal(doubts(cost, nothing, 2.0), nothing)
    less, more = (doubts(cost, nothing + hidden, 2.0) for hidden in (0.5, 1.0))
    assert (less >= 0).all()
    assert (more >= less).all()


COSTS: dict[str, Callable[[], Tensor]] = {
    "normal": lambda: normal_rows(3)[:, 0],
    "half of them equal": lambda: normal_rows(3)[:, 0].clamp_min(0),
    "nine tenths equal": lambda: normal_rows(3)[:, 0].clamp_min(1.28),
    "all equal": lambda: torch.ones(ROWS).double(),
    "two": lambda: torch.tensor([1.0, 2.0]).double(),
}


@pytest.mark.parametrize("name", COSTS)
def test_surprises_are_finite_and_rise_with_the_cost(name: str) -> None:
    costs = COSTS[name]().contiguous()
    scale = _Scale.of(costs)
    grid = torch.linspace(-10, 1e6, 100_001, dtype=torch.float64)
    surprise = scale.surprise(grid)
    assert surprise.isfinite().all()
    assert (surprise.diff() >= 0).all()
    assert (scale.cost(torch.linspace(0, 50, 501).double()).diff() >= 0).all()


def test_a_surprise_is_minus_the_log_of_the_share_of_rows_that_cost_more() -> None:
    costs = normal_rows(4)[:, 0].contiguous()
    scale = _Scale.of(costs)
    for share in (0.9, 0.5, 0.3):
        at = torch.quantile(costs, 1 - share)
        assert float(scale.surprise(at)) == pytest.approx(-math.log(share), abs=0.01)
        assert float(scale.cost(torch.tensor(-math.log(share)))) == pytest.approx(
            float(at), abs=0.02
        )


def test_neighbours_are_fewer_than_the_rows() -> None:
    assert [neighbours_for(rows) for rows in (1, 2, 10, 1_000, 10_000)] == [0, 1, 5, 20, 32]


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_the_smallest_tables_have_a_prior_too(rows: int) -> None:
    exemplars = fitted(normal_rows(5)[:rows])
    assert float(exemplars.log_prior.exp().sum()) == pytest.approx(1)
