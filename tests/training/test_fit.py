"""Fitting learns what the columns say of each other, keeps the best weights, and is the same for
the same seed."""

import numpy as np
import pytest
import torch

from nelbo.errors import InvalidInput
from tests.training.tables import QUICK, made
from training.config import Config
from training.fit import Schedule, fit_rows, hidden_cells, objective
from training.likelihoods import Likelihoods
from training.networks import Auxiliary, Size
from training.prior import Mixture
from training.vae import VAE, coded, mean_nelbo, nelbos


def silent(step: int, steps: int, nelbo: float) -> None:
    """Nobody watches."""


def test_a_fitted_model_beats_independent_columns() -> None:
    training = made("mixed", rows=2_000)
    config = Config(min_steps=250, max_steps=250, threads=1)
    vae, history = fit_rows(training.schema, training.rows, training.split, config, 0, silent)
    held_out = coded(vae.likelihoods, training.rows.take(training.split.calibrate))
    fitted = coded(vae.likelihoods, training.rows.take(training.split.fitted))
    independent = 0.0
    for j in range(fitted[0].shape[1]):
        counts = np.bincount(fitted[0][:, j], minlength=vae.likelihoods.sizes[j]) + 1.0
        independent -= float(
            np.log(counts / counts.sum())[held_out[0][:, j]].mean() + held_out[1][:, j].mean()
        )
    assert mean_nelbo(vae, held_out) < independent - 1.0
    assert history.held_out[-1] < history.held_out[0]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    training = made("mixed")
    weights = [
        fit_rows(training.schema, training.rows, training.split, QUICK, seed, silent)[
            0
        ].decoder.out.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_prior_is_fitted_to_the_aggregate_posterior_and_lowers_nelbo() -> None:
    training = made("mixed", rows=1_000)
    config = Config(min_steps=200, max_steps=200, threads=1)
    vae, history = fit_rows(training.schema, training.rows, training.split, config, 0, silent)
    assert isinstance(vae.prior, Mixture)
    stop = coded(vae.likelihoods, training.rows.take(training.split.stop))
    assert mean_nelbo(vae, stop) < min(history.held_out) + 0.05


def test_rescaling_a_column_moves_every_nelbo_by_exactly_the_log_of_the_factor() -> None:
    training = made("numbers only")
    factor = 1024.0
    scaled = training.rows.numbers * [1.0, 1.0, factor]
    results = []
    for numbers in (training.rows.numbers, scaled):
        rows = type(training.rows)(numbers, training.rows.codes)
        vae, _ = fit_rows(training.schema, rows, training.split, QUICK, 0, silent)
        results.append(nelbos(vae, coded(vae.likelihoods, rows)).numpy())
    present = ~np.isnan(training.rows.numbers[:, 2])
    np.testing.assert_allclose(
        results[1] - results[0], np.where(present, np.log(factor), 0.0), atol=1e-9
    )


def test_an_outlier_costs_more_than_any_row_of_the_table() -> None:
    training = made("numbers only")
    vae, _ = fit_rows(training.schema, training.rows, training.split, QUICK, 0, silent)
    inside = nelbos(vae, coded(vae.likelihoods, training.rows)).numpy()
    rows = training.rows.take(np.arange(5))
    rows.numbers[:, 0] = [1e2, 1e3, 1e4, 1e6, 1e9]
    outside = nelbos(vae, coded(vae.likelihoods, rows)).numpy()
    assert (outside > inside.max()).all()
    assert (np.diff(outside) > 0).all()


def test_plans_pass_over_large_tables_and_repeat_small_ones() -> None:
    config = Config()
    narrow, wide = (Size(16, 128, decoder) for decoder in (64, 256))
    small, large, huge = (
        Schedule.for_table(n, 10, narrow, config) for n in (50, 30_000, 10_000_000)
    )
    assert small.batch <= 50
    assert small.steps == 400 < config.min_steps
    assert large.steps * large.batch // 30_000 <= config.epochs
    assert huge.steps == config.max_steps
    assert Schedule.for_table(30_000, 1_500, narrow, config).steps == 200
    assert (
        Schedule.for_table(30_000, 40, wide, config).steps
        < Schedule.for_table(30_000, 40, narrow, config).steps
    )
    assert [large.beta(step) for step in (1, large.warm_up, large.steps)] == [
        1 / large.warm_up,
        1.0,
        1.0,
    ]


def test_a_step_runs_on_the_device_that_holds_the_model() -> None:
    """On `meta`, whose tensors have shapes but no values: one that was made on the processor would
    not go with them."""
    training = made("mixed")
    likelihoods = Likelihoods.fit(training.schema, training.rows.numbers, training.rows.codes)
    codes, log_density = (part.to("meta") for part in coded(likelihoods, training.rows))
    size, generator = Size.for_table(likelihoods.sizes, 600, widest=64), torch.Generator()
    auxiliary = Auxiliary(likelihoods.sizes, likelihoods.ordered, size, likelihoods.masses.even).to(
        "meta"
    )
    vae = VAE(likelihoods, size, 2, seed=0).to("meta")
    eps = torch.randn(1, len(codes), size.latent, generator=generator).to("meta")
    terms, kl, factorised = objective(
        vae, auxiliary, codes, hidden_cells(len(codes), likelihoods, 0.5, generator).to("meta"), eps
    )
    (terms.sum(1) + kl + factorised).mean().backward()
    assert all(weight.grad is not None for weight in vae.decoder.parameters())
    assert vae.score(codes, log_density)[0].shape == codes.shape


def cuda(steps: int) -> Config:
    return Config(min_steps=steps, max_steps=steps, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_fits_as_well_as_the_processor() -> None:
    training = made("mixed", rows=2_000)
    found = []
    for config in (cuda(250), Config(min_steps=250, max_steps=250)):
        vae, _ = fit_rows(training.schema, training.rows, training.split, config, 0, silent)
        found.append(
            mean_nelbo(vae, coded(vae.likelihoods, training.rows.take(training.split.calibrate)))
        )
    assert found[0] == pytest.approx(found[1], abs=0.2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    training = made("numbers only")
    with pytest.raises(InvalidInput, match="torch finds no CUDA device"):
        fit_rows(training.schema, training.rows, training.split, cuda(1), 0, silent)
