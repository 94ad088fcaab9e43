"""The condensed aggregate posterior has its moments, its density, and stands for no single row."""

import numpy as np
import torch

from training.prior import ROWS_PER_COMPONENT, Mixture, condense


def posteriors(n: int = 2_000, latent: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(5, latent, generator=generator)
    mu = centres[torch.randint(0, 5, (n,), generator=generator)] + 0.3 * torch.randn(n, latent, generator=generator)
    return mu, -2 + 0.2 * torch.randn(n, latent, generator=generator)


def test_the_first_two_moments_are_those_of_the_aggregate_posterior() -> None:
    mu, log_var = posteriors()
    prior = condense(mu, log_var, seed=0)
    weight = prior.weight.double()[:, None]
    mean = (weight * prior.mean.double()).sum(0)
    second = (weight * (prior.variance.double() + prior.mean.double().square())).sum(0)
    np.testing.assert_allclose(mean.numpy(), mu.double().mean(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(second.numpy(), (log_var.double().exp() + mu.double().square()).mean(0).numpy(), rtol=1e-5)


def test_the_density_is_that_of_a_mixture_of_gaussians() -> None:
    prior = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[0.0, 1.0], [2.0, -1.0]]), torch.tensor([[1.0, 0.5], [0.2, 2.0]]))
    components = torch.distributions.Independent(torch.distributions.Normal(prior.mean, prior.variance.sqrt()), 1)
    exact = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(prior.weight), components)
    z = torch.randn(4, 6, 2)
    np.testing.assert_allclose(prior.log_prob(z).numpy(), exact.log_prob(z).numpy(), rtol=1e-5)


def test_components_are_shared_by_several_rows_and_few_rows_have_one() -> None:
    assert len(condense(*posteriors(400), seed=0).weight) <= 400 // ROWS_PER_COMPONENT
    assert len(condense(*posteriors(5), seed=0).weight) == 1


def test_it_is_as_tight_a_prior_as_the_aggregate_posterior_itself() -> None:
    mu, log_var = posteriors()
    z = (mu + torch.exp(0.5 * log_var) * torch.randn(mu.shape, generator=torch.Generator().manual_seed(1)))[:500]
    exact = Mixture(torch.full((len(mu),), 1 / len(mu)), mu, log_var.exp()).log_prob(z).mean()
    assert abs(float(condense(mu, log_var, seed=0).log_prob(z).mean() - exact)) < 0.1
