"""Priors p(z): the standard normal that training starts from, and a Gaussian mixture fitted to the aggregate posterior.

log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) holds for any fixed prior, so the prior may be chosen once q is trained; the
average of q(z|x) over the training rows makes the bound tightest (Hoffman & Johnson 2016, "ELBO surgery").
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from training.model import LOG_TWO_PI, log_normal

MAX_FIT_ROWS = 20_000


class StandardNormal(nn.Module):
    """N(0, I)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """z float[…, L] → float[…]"""
        zero = torch.zeros_like(z)
        return log_normal(z, zero, zero)


class Mixture(nn.Module):
    """A mixture of C Gaussians with full covariances: `weight` [C], `mean` [C, L], `factor` [C, L, L] (lower Cholesky)."""

    weight: Tensor
    mean: Tensor
    factor: Tensor
    whiten: Tensor
    offset: Tensor
    constant: Tensor

    def __init__(self, weight: NDArray[np.float64], mean: NDArray[np.float64], factor: NDArray[np.float64]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(weight).float())
        self.register_buffer("mean", torch.from_numpy(mean).float())
        self.register_buffer("factor", torch.from_numpy(factor).float())
        inverse = np.linalg.inv(factor)
        constant = np.log(weight) - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1) - 0.5 * mean.shape[1] * LOG_TWO_PI
        self.register_buffer("whiten", torch.from_numpy(inverse).float())
        self.register_buffer("offset", torch.from_numpy(-np.einsum("cij,cj->ci", inverse, mean)).float())
        self.register_buffer("constant", torch.from_numpy(constant).float())

    def log_prob(self, z: Tensor) -> Tensor:
        """z float[…, L] → float[…]"""
        components, latent = self.mean.shape
        white = z @ self.whiten.reshape(components * latent, latent).T + self.offset.reshape(-1)
        distance = white.reshape(*z.shape[:-1], components, latent).square().sum(-1)
        return torch.logsumexp(self.constant - 0.5 * distance, -1)


def fit_mixture(z: Tensor, seed: int) -> Mixture:
    """A mixture fitted by EM to samples z float[n, L] of the aggregate posterior, about 200 rows a component, 32 at most."""
    rows = z[:MAX_FIT_ROWS].double().numpy()
    components = int(np.clip(len(rows) // 200, 1, 32))
    fitted = GaussianMixture(components, reg_covar=1e-3, max_iter=60, tol=1e-3, init_params="k-means++", random_state=seed)
    with threadpool_limits(1):  # matrices this small are slower on several threads
        fitted.fit(rows)
    return Mixture(fitted.weights_, fitted.means_, np.linalg.cholesky(fitted.covariances_))
