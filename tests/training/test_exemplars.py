"""Every kernel is a density, the ELBO of a few exemplars is a bound on the mixture's log-density,
and the nearest are best."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nelbo.engine import Engine
from nelbo.schema import Column, Schema
from tests.training.tables import QUICK
from training.data import Rows, split_rows
from training.exemplars import MOST_CELLS, Exemplars, share_for
from training.export import export_model
from training.fit import fit_rows
from training.likelihoods import Likelihoods
from training.vae import score

Floats = NDArray[np.float64]
RNG = np.random.default_rng(0)
MIXED = Schema(
    columns=(
        Column(name="price", kind="continuous"),
        Column(name="shop", kind="categorical", categories=("a", "b", "c")),
        Column(name="items", kind="integer"),
    )
)


def fitted(rows: int = 300) -> tuple[Exemplars, torch.Tensor, torch.Tensor]:
    numbers = np.column_stack([50 + 9 * RNG.standard_t(3, rows), RNG.integers(0, 40, rows)]).astype(
        np.float64
    )
    numbers[::7, 0] = np.nan
    codes = RNG.integers(0, 3, (rows, 1))
    likelihoods = Likelihoods.fit(MIXED, numbers, codes)
    given = torch.from_numpy(numbers), torch.from_numpy(codes)
    return Exemplars.fit(likelihoods, *given, seed=0), *given


def log_kernels(exemplars: Exemplars, number: float, code: int) -> NDArray[np.float64]:
    """log p(x|n) of one row under every exemplar, term by term from the definitions: price and
    shop, items held still."""
    y, slope = exemplars.warped(torch.tensor([[number, 10.0]], dtype=torch.float64))
    off = (y - exemplars.y) / exemplars.bandwidth[:, None]
    parts = (
        -0.5 * off.square()
        - exemplars.bandwidth.log()[:, None]
        - 0.5 * math.log(2 * math.pi)
        + slope
    )
    parts = parts + torch.log1p(-exemplars.missing.exp())
    share = exemplars.log_share.exp()[code]
    mass = torch.where(exemplars.codes[:, 0] == code, 0.7 + 0.3 * share, 0.3 * share)
    return (parts.sum(1) + mass.log()).numpy()


def test_the_elbo_bounds_the_log_density_by_the_five_highest_kernels() -> None:
    exemplars, _, _ = fitted()
    for number, code in ((50.0, 0), (61.3, 2), (-200.0, 1)):
        terms, kl = exemplars.score(
            torch.tensor([[number, 10.0]], dtype=torch.float64), torch.tensor([[code]])
        )
        nelbo = float(terms.sum() + kl)
        joint = log_kernels(exemplars, number, code) + exemplars.log_prior.numpy()
        assert nelbo >= -np.logaddexp.reduce(joint) - 1e-9
        q = np.array([0.6, 0.1, 0.1, 0.1, 0.1])
        elbo = q @ np.sort(joint)[:-6:-1] - np.log(q) @ q
        assert nelbo == pytest.approx(-elbo, rel=1e-4)


def test_a_kernel_integrates_to_one_over_the_column_with_what_missing_leaves() -> None:
    exemplars, _, _ = fitted()
    grid = torch.linspace(-4_000, 4_000, 2_000_001, dtype=torch.float64)
    y, slope = exemplars.warped(torch.stack([grid, torch.zeros_like(grid)], 1))
    h = exemplars.bandwidth[5]
    density = torch.exp(-0.5 * ((y[:, 0] - exemplars.y[5, 0]) / h).square() + slope[:, 0]) / (
        h * math.sqrt(2 * math.pi)
    )
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-3)
    assert float(exemplars.log_share.exp().sum()) == pytest.approx(1)


def test_terms_are_in_the_order_of_the_schema_and_kl_is_the_choice_of_exemplars() -> None:
    exemplars, numbers, codes = fitted()
    odd = numbers[:1].clone()
    odd[0, 0] = 1e6
    usual, kl = exemplars.score(numbers[1:2], codes[1:2])
    terms, _ = exemplars.score(odd, codes[:1])
    assert terms.shape == (1, 3)
    assert int((terms - usual).argmax()) == 0
    assert 0 < float(kl) < math.log(len(exemplars.y))
    assert float(exemplars.log_prior.exp().sum()) == pytest.approx(1)


def test_a_missing_value_costs_what_it_is_worth_and_no_distance() -> None:
    exemplars, numbers, codes = fitted()
    numbers = numbers[:1].clone()
    numbers[0, 0] = math.nan
    terms, _ = exemplars.score(numbers, codes[:1])
    assert float(terms[0, 0]) == pytest.approx(-float(exemplars.missing[0]))


def test_few_wide_rows_and_constant_columns_are_scored_finitely() -> None:
    schema = Schema(columns=tuple(Column(name=f"x{j}", kind="continuous") for j in range(900)))
    numbers = np.zeros((500, 900))
    numbers[:, 0] = RNG.normal(size=500)
    likelihoods, none = (
        Likelihoods.fit(schema, numbers, np.zeros((500, 0), np.int64)),
        torch.zeros(500, 0, dtype=torch.int64),
    )
    exemplars = Exemplars.fit(likelihoods, torch.from_numpy(numbers), none, seed=0)
    assert exemplars.y.numel() <= MOST_CELLS
    terms, _ = exemplars.score(torch.from_numpy(numbers), none)
    assert torch.isfinite(terms).all()


def test_numbers_alone_are_scored_by_exemplars_and_categories_by_the_vae() -> None:
    assert share_for(10, 0) == 1
    assert share_for(5, 5) == 0
    assert share_for(0, 3) == 0
    assert 0 < share_for(9, 1) < 1


def with_sentinel(n: int) -> Floats:
    x = np.round(RNG.normal(20, 5, (n, 3)), 2)
    return np.where(RNG.random((n, 3)) < 0.1, -9999.0, x)


def with_two_scales(n: int) -> Floats:
    return np.round(RNG.normal(5, 1, (n, 2)), 2) * np.where(RNG.random((n, 2)) < 0.5, 1000, 1)


def with_duplicates(n: int) -> Floats:
    x = RNG.normal(size=(n, 4))
    return np.where(RNG.random((n, 1)) < 0.9, x[:3][RNG.integers(0, 3, n)], x)


def with_near_duplicates(n: int) -> Floats:
    return RNG.normal(size=(10, 3))[RNG.integers(0, 10, n)] + 1e-9 * RNG.normal(size=(n, 3))


def on_a_grid(n: int) -> Floats:
    """All places of a grid alike, so that the neighbours of each are equally near."""
    places = np.array(list(itertools.product(range(6), repeat=4)), dtype=np.float64)
    return np.resize(places, (n, 4))


def with_far_rows(n: int) -> Floats:
    x = RNG.normal(size=(n, 3))
    x[0], x[1] = 1e300, -1e300
    return x


HOSTILE: dict[str, Callable[[int], Floats]] = {
    "a sentinel": with_sentinel,
    "two scales in one column": with_two_scales,
    "90 % duplicated rows": with_duplicates,
    "near duplicates": with_near_duplicates,
    "a grid": on_a_grid,
    "rows as far as floats go": with_far_rows,
    "numbers near zero": lambda n: RNG.normal(size=(n, 2)) * 1e-308,
    "numbers near the largest": lambda n: RNG.normal(size=(n, 2)) * 1e307,
    "two values": lambda n: RNG.integers(0, 2, (n, 5)).astype(np.float64),
    "all equal but one": lambda n: np.eye(n, 3),
    "one value": lambda n: np.full((n, 2), 7.25),
}


@pytest.mark.parametrize("rows", [300, 1_800])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_the_nearest_exemplars_and_their_costs_are_the_same_in_torch_and_in_the_graph(
    hostile: str, rows: int, tmp_path: Path
) -> None:
    numbers = HOSTILE[hostile](rows)
    columns = [Column(name=f"x{j}", kind="continuous") for j in range(numbers.shape[1])]
    columns.append(Column(name="shop", kind="categorical", categories=("a", "b", "c")))
    encoded = Rows(numbers, RNG.integers(0, 3, (rows, 1)))
    config = QUICK.model_copy(update={"min_steps": 1, "max_steps": 1, "exemplars": 1.0})
    schema = Schema(columns=tuple(columns))
    vae, _ = fit_rows(schema, encoded, split_rows(rows, 0.1, 0), config, 0, lambda *_: None)
    export_model(tmp_path, vae, "hostile", schema, config, 0, encoded)
    scored = score(vae, encoded)
    engine = Engine.load(tmp_path)
    costs = engine.costs(encoded.numbers, encoded.codes)
    assert np.isfinite(costs.nelbo).all()
    np.testing.assert_allclose(costs.nelbo, scored.nelbo.numpy(), rtol=1e-6, atol=1e-6)
    differ = ~np.isclose(costs.terms, scored.terms.numpy(), rtol=1e-6, atol=1e-6).all(1)
    assert differ.sum() <= 1, "one row may be at the boundary between two steps"

    for part in (slice(0, 1), slice(7, 30)):
        alone = engine.costs(encoded.numbers[part], encoded.codes[part])
        np.testing.assert_allclose(alone.nelbo, costs.nelbo[part], rtol=1e-12)
