"""Priors p(z): the standard normal that training starts from, and the aggregate posterior,
condensed to a mixture.

log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) holds for any fixed prior, so the prior may be chosen
once q is trained; the average of q(z|x) over the training rows makes the bound tightest (Hoffman &
Johnson 2016, "ELBO surgery").
"""

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from training.model import LOG_TWO_PI, log_normal

MOST_COMPONENTS = 1_024
ROWS_PER_COMPONENT = 8
"""At least so many rows share a component on average, so that none stands for a single row."""


class StandardNormal(nn.Module):
    """N(0, I)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """z float[…, L] → float[…]"""
        zero = torch.zeros_like(z)
        return log_normal(z, zero, zero)


class Mixture(nn.Module):
    """A mixture of C Gaussians with diagonal covariances: `weight` [C], `mean` [C, L], `variance`
    [C, L].

    Its log-density is a logsumexp of `quadratic` · (z², z) + `constant`: one matrix product for all
    components.
    """

    weight: Tensor
    mean: Tensor
    variance: Tensor
    quadratic: Tensor
    constant: Tensor

    def __init__(self, weight: Tensor, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        norm = mean.square() / variance + variance.log() + LOG_TWO_PI
        buffers = {
            "weight": weight,
            "mean": mean,
            "variance": variance,
            "quadratic": torch.cat([-0.5 / variance, mean / variance], 1),
            "constant": weight.log() - 0.5 * norm.sum(1),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values.float())

    def between(self, mu: Tensor, log_var: Tensor, spread: float) -> tuple[Tensor, Tensor, Tensor]:
        """From q(z|x) = N(mu, diag(σ² = exp(log_var))), both [n, L], at spread s = 0 to this
        mixture at 1: log-weights [n, C] of its components, up to a constant of each row, and their
        means and variances [n, C, L].

        Component c has the weight w_c Z_c and the density q^a N_c^s / Z_c with a = 1 − s, N_c =
        N(m, v), Z_c = ∫ q^a N_c^s dz. With t = a v + s σ² in each dimension that is N(mu + s σ²/t
        (m − mu), σ² v/t), and log Z_c = −½ Σ (log t − a log v − s log σ² + a s (mu − m)²/t).
        """
        a, s = 1 - spread, spread
        mu, var, m, v = mu[:, None], log_var.exp()[:, None], self.mean, self.variance
        t = a * v + s * var
        cost = t.log() - a * v.log() + a * s * (mu - m).square() / t
        return self.weight.log() - 0.5 * cost.sum(-1), mu + s * var / t * (m - mu), var * v / t

    def log_prob(self, z: Tensor) -> Tensor:
        """z float[…, L] → float[…]"""
        return torch.logsumexp(
            torch.cat([z.square(), z], -1) @ self.quadratic.T + self.constant, -1
        )


def condense(mu: Tensor, log_var: Tensor, seed: int) -> Mixture:
    """The average of the n posteriors N(mu, diag(exp(log_var))), both float[n, L], with rows that
    lie together merged.

    Rows are clustered by their means (Sculley 2010); a cluster's Gaussian has the mean and the
    variances of the mixture of its rows' posteriors, so the first two moments of the whole are
    exact.
    """
    n = len(mu)
    components = int(np.clip(n // ROWS_PER_COMPONENT, 1, MOST_COMPONENTS))
    clustering = MiniBatchKMeans(
        components, batch_size=4_096, n_init=1, max_iter=30, random_state=seed
    )
    with threadpool_limits(1):  # another number of threads would add in another order
        cluster = torch.from_numpy(clustering.fit(mu.numpy()).labels_).long()
    rows = torch.bincount(cluster, minlength=components).double()
    kept = rows > 0

    def mean_of(values: Tensor) -> Tensor:
        return (
            torch.zeros(components, mu.shape[1]).double().index_add_(0, cluster, values)[kept]
            / rows[kept, None]
        )

    mu, var = mu.double(), log_var.double().exp()
    mean = mean_of(mu)
    variance = (mean_of(var + mu.square()) - mean.square()).clamp_min(1e-6)
    return Mixture(rows[kept] / n, mean, variance)
