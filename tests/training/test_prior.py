"""The condensed aggregate posterior has its moments, its density, and stands for no single row."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.gaussians import log_normal
from training.prior import ROWS_PER_COMPONENT, Mixture, between, condense


def posteriors(n: int = 2_000, latent: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(5, latent, generator=generator)
    mu = centres[torch.randint(0, 5, (n,), generator=generator)] + 0.3 * torch.randn(
        n, latent, generator=generator
    )
    return mu, -2 + 0.2 * torch.randn(n, latent, generator=generator)


def path_to(prior: Mixture, mu: Tensor, log_var: Tensor, spread: float) -> tuple[Tensor, ...]:
    """Log-weights [n, C], means and variances [n, C, L] of the mixture between q(z|x) and the
    prior."""
    a = torch.tensor(1 - spread)
    s = torch.tensor(spread)
    var = log_var.exp()[:, None]
    mean, variance = between(mu[:, None], var, prior.mean, prior.variance, a, s)
    return prior.log_weights(mu, log_var, a, s), mean, variance


def test_the_first_two_moments_are_those_of_the_aggregate_posterior() -> None:
    mu, log_var = posteriors()
    prior = condense(mu, log_var, seed=0)
    weight = prior.weight.double()[:, None]
    mean = (weight * prior.mean.double()).sum(0)
    second = (weight * (prior.variance.double() + prior.mean.double().square())).sum(0)
    np.testing.assert_allclose(mean.numpy(), mu.double().mean(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(
        second.numpy(), (log_var.double().exp() + mu.double().square()).mean(0).numpy(), rtol=1e-5
    )


def test_any_seed_of_64_bits_condenses() -> None:
    mu, log_var = posteriors(n=100)
    assert torch.isfinite(condense(mu, log_var, seed=2**63 - 1).mean).all()


def test_the_density_is_that_of_a_mixture_of_gaussians() -> None:
    prior = Mixture(
        torch.tensor([0.3, 0.7]),
        torch.tensor([[0.0, 1.0], [2.0, -1.0]]),
        torch.tensor([[1.0, 0.5], [0.2, 2.0]]),
    )
    components = torch.distributions.Independent(
        torch.distributions.Normal(prior.mean, prior.variance.sqrt()), 1
    )
    exact = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(prior.weight), components
    )
    z = torch.randn(4, 6, 2)
    np.testing.assert_allclose(prior.log_prob(z).numpy(), exact.log_prob(z).numpy(), rtol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_between_a_row_and_the_prior_the_density_is_that_of_the_geometric_path(
    spread: float,
) -> None:
    """By quadrature: p(z) ∝ Σ_c w_c q(z)^(1 - s) N_c(z)^s, which is q at s = 0 and the prior's own
    at 1."""
    prior = Mixture(
        torch.tensor([0.2, 0.5, 0.3]),
        torch.tensor([[-2.0], [0.5], [3.0]]),
        torch.tensor([[0.1], [1.0], [0.4]]),
    )
    mu, log_var = torch.tensor([[0.0], [2.5]]), torch.tensor([[-1.0], [0.7]])
    z = torch.linspace(-20, 20, 40_001).double()
    log_weight, mean, var = path_to(prior, mu, log_var, spread)
    density = (
        log_weight.softmax(1)[..., None]
        * torch.distributions.Normal(mean, var.sqrt()).log_prob(z).exp()
    ).sum(1)
    near = torch.distributions.Normal(mu, torch.exp(0.5 * log_var)).log_prob(z)
    far = torch.distributions.Normal(prior.mean, prior.variance.sqrt()).log_prob(z)
    path = (prior.weight[:, None] * ((1 - spread) * near[:, None] + spread * far).exp()).sum(1)
    exact = path / torch.trapezoid(path, z)[:, None]
    np.testing.assert_allclose(density.numpy(), exact.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_each_component_s_share_of_the_path_is_exact_in_many_dimensions(spread: float) -> None:
    prior, (mu, log_var) = condense(*posteriors(80), seed=0), posteriors(4)
    log_weight, mean, var = path_to(prior, mu, log_var, spread)
    z = torch.randn(6, 1, 1, 3, generator=torch.Generator().manual_seed(1))
    found = log_weight + log_normal(z, mean, var.log())
    near, far = (
        log_normal(z, mu[:, None], log_var[:, None]),
        log_normal(z, prior.mean, prior.variance.log()),
    )
    off = found - prior.weight.log() - (1 - spread) * near - spread * far
    np.testing.assert_allclose(
        off.numpy(), off[:1, :, :1].expand_as(off).numpy(), rtol=1e-4, atol=1e-3
    )


def test_components_are_shared_by_several_rows_and_few_rows_have_one() -> None:
    assert len(condense(*posteriors(400), seed=0).weight) <= 400 // ROWS_PER_COMPONENT
    assert len(condense(*posteriors(5), seed=0).weight) == 1


def test_it_is_as_tight_a_prior_as_the_aggregate_posterior_itself() -> None:
    mu, log_var = posteriors()
    z = (
        mu
        + torch.exp(0.5 * log_var)
        * torch.randn(mu.shape, generator=torch.Generator().manual_seed(1))
    )[:500]
    exact = Mixture(torch.full((len(mu),), 1 / len(mu)), mu, log_var.exp()).log_prob(z).mean()
    assert abs(float(condense(mu, log_var, seed=0).log_prob(z).mean() - exact)) < 0.1
