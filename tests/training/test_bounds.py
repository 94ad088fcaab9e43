"""A nelbo is a bound: never below −log p(x), which many samples (VAE) or a sum over all exemplars
give, nor is a mixture's."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.tables import made
from training.config import Config
from training.data import Rows
from training.exemplars import FLIP, Exemplars
from training.fit import fit_rows
from training.gaussians import LOG_TWO_PI, log_normal
from training.vae import VAE, score

SAMPLES = 2_000


@pytest.fixture(scope="module")
def fitted() -> tuple[VAE, Tensor, Tensor]:
    """A model of a mixed table whose score is half one member's and half the other's, and 60 whole
    rows it has not seen."""
    training = made("mixed", rows=1_500)
    config = Config(min_steps=250, max_steps=250, exemplars=0.5)
    vae, _ = fit_rows(training.schema, training.rows, training.split, config, 0, lambda *_: None)
    rows = training.rows.take(training.split.calibrate)
    whole = ~np.isnan(rows.numbers).any(1)
    return vae, torch.from_numpy(rows.numbers[whole][:60]), torch.from_numpy(rows.codes[whole][:60])


def by_importance_sampling(vae: VAE, numbers: Tensor, codes: Tensor) -> Tensor:
    """−log p(x) float64[n] of the VAE (Burda et al. 2016)."""
    x, log_density = vae.likelihoods.encode(numbers, codes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        mu, log_var = vae.encoder(x)
        weights = []
        for _ in range(SAMPLES):
            z = mu + torch.exp(0.5 * log_var) * torch.randn(mu.shape, generator=generator)
            log_p_x = vae.likelihoods.masses.log_prob(vae.decoder(z, x), x).sum(1)
            weights.append(log_p_x + vae.prior.log_prob(z) - log_normal(z, mu, log_var))
    return -(
        torch.logsumexp(torch.stack(weights).double(), 0) - math.log(SAMPLES) + log_density.sum(1)
    )


def by_all_exemplars(exemplars: Exemplars, x: Tensor, codes: Tensor) -> Tensor:
    """−log p(x) float64[n] of the exemplars, kernel by kernel from the definitions."""
    y, slope = exemplars.warped(x)
    h = exemplars.bandwidth[:, None]
    log_kernel = (
        -0.5 * ((y[:, None] - exemplars.y) / h).square() - h.log() - 0.5 * LOG_TWO_PI
    ).sum(-1)
    share = exemplars.log_share[codes + exemplars.start].exp()[:, None]
    log_mass = torch.log((1 - FLIP) * (codes[:, None] == exemplars.codes) + FLIP * share).sum(-1)
    present = (slope + torch.log1p(-exemplars.missing.exp())).sum(1)
    return -(torch.logsumexp(log_kernel + log_mass + exemplars.log_prior, 1) + present)


def test_the_vaes_nelbo_is_a_bound_and_near(fitted: tuple[VAE, Tensor, Tensor]) -> None:
    vae, *rows = fitted
    x, log_density = vae.likelihoods.encode(*rows)
    with torch.no_grad():
        points = torch.randn(64, 1, vae.eps.shape[1], generator=torch.Generator().manual_seed(2))
        bounds = [vae.bound(x, x, point[None]) for point in points]
    draws = torch.stack([sum_of(bound.terms, bound.kl) for bound in bounds]) - log_density.sum(1)
    gap = draws - by_importance_sampling(vae, *rows)
    error = draws.std(0) / math.sqrt(len(draws))
    assert (gap.mean(0) > -3 * error).all()
    assert 0 < float(gap.mean()) < 3
    fixed = sum_of(*vae.score(x, log_density))
    assert abs(float((fixed - draws.mean(0)).mean())) < 0.5, (
        "the fixed noise points stand in for the expectation"
    )


def test_the_exemplars_nelbo_is_a_bound_and_near(fitted: tuple[VAE, Tensor, Tensor]) -> None:
    vae, numbers, codes = fitted
    assert vae.exemplars is not None
    rows = vae.likelihoods.numbers.fields.split(numbers), codes
    gap = sum_of(*vae.exemplars.score(*rows)) - by_all_exemplars(vae.exemplars, *rows)
    assert float(gap.min()) > 0
    assert float(gap.mean()) < 3


def test_a_row_s_score_is_a_bound_on_the_mixture_of_both(
    fitted: tuple[VAE, Tensor, Tensor],
) -> None:
    vae, *rows = fitted
    assert vae.exemplars is not None
    of_exemplars = by_all_exemplars(
        vae.exemplars, vae.likelihoods.numbers.fields.split(rows[0]), rows[1]
    )
    members = torch.stack([by_importance_sampling(vae, *rows), of_exemplars])
    shares = torch.tensor([[1 - vae.share], [vae.share]], dtype=torch.float64)
    mixture = -torch.logsumexp(shares.log() - members, 0)
    nelbo = score(vae, Rows(*(part.numpy() for part in rows))).nelbo
    assert (nelbo > mixture - 0.5).all(), "half a nat is what two noise points may be off"
    assert float((nelbo - mixture).mean()) > 0


def sum_of(terms: Tensor, kl: Tensor) -> Tensor:
    return terms.sum(1).double() + kl.double()
