"""Gaussians with diagonal covariances: their log-density, numbers drawn from them, and the fixed
noise of a row's score."""

import math

import torch
from torch import Tensor

from .arrays import Array, concat

LOG_TWO_PI = math.log(2 * math.pi)


def log_normal(z: Array, mu: Array, log_var: Array) -> Array:
    """log N(z; mu, diag(exp(log_var))), summed over the last axis; every constant is kept."""
    return -0.5 * ((z - mu).square() * (-log_var).exp() + log_var + LOG_TWO_PI).sum(-1)


def normals(u: Array, count: int) -> Array:
    """Normal numbers float32[n, count] from uniform numbers float64[n, 2 ⌈count / 2⌉] (Box & Muller
    1958)."""
    pairs = (count + 1) // 2
    radius = ((1 - u[:, :pairs]).log() * -2).sqrt()
    angle = u[:, pairs : 2 * pairs] * (2 * math.pi)
    return concat([radius * angle.cos(), radius * angle.sin()], 1)[:, :count].float()


def noise_points(points: int, latent: int, seed: int) -> Tensor:
    """Fixed noise eps float[S, L]: antithetic pairs whose mean is 0 and whose second moment is 1 in
    each dimension."""
    half = torch.randn(points // 2, latent, generator=torch.Generator().manual_seed(seed))
    half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])
