"""The fixed noise of scores is as good as a sample of normal numbers."""

import numpy as np
import pytest
import torch

from training.gaussians import noise_points, normals


def test_noise_points_have_mean_zero_and_second_moment_one() -> None:
    eps = noise_points(4, 7, seed=3)
    np.testing.assert_allclose(eps.mean(0).numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(eps.square().mean(0).numpy(), 1, atol=1e-5)


def test_normal_numbers_have_the_moments_and_the_quantiles_of_a_normal_distribution() -> None:
    u = torch.rand(50_000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = normals(u, 5)
    assert drawn.shape == (50_000, 5)
    np.testing.assert_allclose(drawn.mean(0).numpy(), 0, atol=0.02)
    np.testing.assert_allclose(torch.cov(drawn.T).numpy(), np.eye(5), atol=0.03)
    assert float((drawn < 1.2816).double().mean()) == pytest.approx(0.9, abs=0.005)
