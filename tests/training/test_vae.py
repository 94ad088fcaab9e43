"""The objective is a bound on log p(x): checked on a linear model whose exact likelihood is known
(probabilistic PCA)."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.gaussians import LOG_TWO_PI, log_normal, noise_points
from training.vae import negative_elbo

SIGMA = 0.4
LOADINGS = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.3, 0.0], [0.0, 0.7]], dtype=torch.float64)
PRECISION = LOADINGS.T @ LOADINGS + SIGMA**2 * torch.eye(2, dtype=torch.float64)
X = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def exact() -> Tensor:
    """-log p(x) float64[n] of N(0, LOADINGS LOADINGSᵀ + SIGMA² I) (Tipping & Bishop 1999)."""
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(4, dtype=torch.float64),
        LOADINGS @ LOADINGS.T + SIGMA**2 * torch.eye(4, dtype=torch.float64),
    )
    log_p: Tensor = normal.log_prob(X)
    return -log_p


def nelbo(mu: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """The project's objective with q = N(mu, diag exp(log_var)), prior N(0, I) and likelihood
    N(LOADINGS z, SIGMA²)."""
    z = mu + torch.exp(0.5 * log_var) * eps
    residual = (X - z @ LOADINGS.T) / SIGMA
    log_p_x = -0.5 * (residual.square() + LOG_TWO_PI) - math.log(SIGMA)
    zero = torch.zeros_like(z)
    terms, kl = negative_elbo(log_normal(z, mu, log_var), log_normal(z, zero, zero), log_p_x)
    return terms.sum(1) + kl


@pytest.mark.parametrize("off", [0.0, 0.3, 1.0])
def test_nelbo_bounds_the_exact_negative_log_likelihood_in_the_mean_over_noise(off: float) -> None:
    mu = X @ LOADINGS @ torch.linalg.inv(PRECISION) + off
    log_var = torch.full_like(mu, math.log(SIGMA**2))
    eps = torch.randn(20_000, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert (nelbo(mu, log_var, eps) >= exact() - 1e-3).all()


def test_nelbo_meets_the_exact_negative_log_likelihood_at_the_optimum() -> None:
    """These loadings' columns are not orthogonal: rotate z so that the exact posterior is diagonal,
    as q is."""
    values, vectors = torch.linalg.eigh(PRECISION)
    rotated = LOADINGS @ vectors
    mu = X @ rotated / values
    log_var = torch.log(SIGMA**2 / values).expand_as(mu)
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)[:, None, :]
    z = mu + torch.exp(0.5 * log_var) * signs
    log_p_x = -0.5 * (((X - z @ rotated.T) / SIGMA).square() + LOG_TWO_PI) - math.log(SIGMA)
    zero = torch.zeros_like(z)
    terms, kl = negative_elbo(log_normal(z, mu, log_var), log_normal(z, zero, zero), log_p_x)
    np.testing.assert_allclose((terms.sum(1) + kl).numpy(), exact().numpy(), atol=1e-5)


def test_training_the_objective_reaches_the_exact_likelihood() -> None:
    mu = torch.zeros(50, 2, dtype=torch.float64, requires_grad=True)
    log_var = torch.zeros(50, 2, dtype=torch.float64, requires_grad=True)
    eps = noise_points(64, 2, seed=0).double()[:, None, :]
    optimiser = torch.optim.Adam([mu, log_var], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        nelbo(mu, log_var, eps).sum().backward()
        optimiser.step()
    gap = (nelbo(mu, log_var, eps) - exact()).mean().item()
    correlation = PRECISION[0, 1] ** 2 / (PRECISION[0, 0] * PRECISION[1, 1])
    assert gap == pytest.approx(-0.5 * math.log(1 - correlation), abs=0.02)
