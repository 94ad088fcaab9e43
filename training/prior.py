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

from .arrays import Array, concat, picked, take
from .gaussians import LOG_TWO_PI, normals
from .nodes import Nodes, Value, scan

MOST_COMPONENTS = 1_024
ROWS_PER_COMPONENT = 8
"""At least this number of rows share a component on average, so that none is a single row's."""


class StandardNormal(nn.Module):
    """N(0, I)."""

    def log_prob(self, z: Array) -> Array:
        """z float[…, L] → float[…]"""
        return -0.5 * (z.square() + LOG_TWO_PI).sum(-1)


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

    def log_prob(self, z: Array) -> Array:
        """z float[…, L] → float[…]"""
        features = concat([z.square(), z], -1)
        return (features @ self.quadratic.T + self.constant).logsumexp(-1)

    def draw(self, u: Array) -> Array:
        """z float32[n, L] by uniform numbers u float64[n, …]: a component by the first one, then
        its Gaussian by the others."""
        upto = self.weight.double().cumsum(0)[None, :-1]
        component = picked(u[:, :1], upto)
        mean = take(self.mean, component)
        sigma = take(self.variance.sqrt(), component)
        return mean + sigma * normals(u[:, 1:], self.latent)

    @property
    def latent(self) -> int:
        return self.mean.shape[1]

    def draw_between(self, mu: Array, log_var: Array, u: Array, spread: Array) -> Array:
        """z float32[n, L] from q(z|x) = N(mu, diag(σ² = exp(log_var))) at spread s = 0, from this
        mixture at 1, from between them otherwise. u is used as in `draw`; spread is float64[1].

        Component c has the weight w_c Z_c and the density q^a N_c^s / Z_c with a = 1 − s, N_c =
        N(m, v) and Z_c = ∫ q^a N_c^s dz.
        """
        a = (1 - spread).float()
        s = spread.float()
        log_weight = self.log_weights(mu, log_var, a, s)
        weight = (log_weight - log_weight.amax(1, keepdim=True)).exp().double()
        upto = weight.cumsum(1)
        component = picked(u[:, :1] * upto[:, -1:], upto[:, :-1])

        m = take(self.mean, component)
        v = take(self.variance, component)
        mean, variance = between(mu, log_var.exp(), m, v, a, s)
        return mean + variance.sqrt() * normals(u[:, 1:], self.latent)

    def log_weights(self, mu: Array, log_var: Array, a: Array, s: Array) -> Array:
        """log (w_c Z_c) [n, C], up to a constant of each row: log Z_c = −½ Σ (log t − a log v −
        s log σ² + a s (mu − m)²/t) with t = a v + s σ² in each dimension."""
        if isinstance(mu, Value):
            return self._log_weights_by_scan(mu, log_var.exp(), a, s)
        off = mu[:, None] - self.mean
        t = a * self.variance + s * log_var.exp()[:, None]
        cost = t.log() - a * self.variance.log() + a * s * off.square() / t
        return self.weight.log() - 0.5 * cost.sum(-1)

    def _log_weights_by_scan(self, mu: Value, var: Value, a: Value, s: Value) -> Value:
        """A Scan over the latent variables: arrays [n, C] stay in the processor's cache, [n, C, L]
        would not. Logarithms cost most, so the variances t, 1e-6 to some 1e5 each, are multiplied
        first; a double holds the product for 16 latent variables and more.
        """
        nodes = mu.nodes
        shape = [nodes.rows, len(self.weight)]
        root = (a * s).sqrt()
        start = [
            nodes.constant(np.float32(0)).expand(*shape),
            nodes.constant(np.float64(1)).expand(*shape),
        ]
        slices = [
            root * self.mean.T,
            a * self.variance.T,
            (root * mu).permute(1, 0),
            (s * var).permute(1, 0),
        ]
        cost, product = scan(_one_latent(*shape), start, slices)
        cost = cost + product.log().float()
        of_prior = a * (0.5 * self.variance.log().sum(1)) + self.weight.log()
        return of_prior - cost * 0.5


def _one_latent(rows: int, components: int) -> Nodes:
    """One latent variable's part of the costs: Σ (m − mu)²/t and Π t, where a and s are inside m,
    v, mu and var already."""
    body = Nodes(rows, "latent_")
    cost = body.input("cost", "float32", [rows, components])
    product = body.input("product", "float64", [rows, components])
    m = body.input("m", "float32", [components])
    v = body.input("v", "float32", [components])
    mu = body.input("mu", "float32", [rows])
    var = body.input("var", "float32", [rows])

    t = v + var[:, None]
    off = m - mu[:, None]
    body.output("cost_next", cost + off * off / t, [rows, components])
    body.output("product_next", product * t.double(), [rows, components])
    return body


def between(mu: Array, var: Array, m: Array, v: Array, a: Array, s: Array) -> tuple[Array, Array]:
    """Mean and variance of the Gaussian ∝ N(mu, var)^a N(m, v)^s in each dimension, where
    a + s = 1."""
    t = a * v + s * var
    return mu + s * var / t * (m - mu), var * v / t


def condense(mu: Tensor, log_var: Tensor, seed: int) -> Mixture:
    """The average of the n posteriors N(mu, diag(exp(log_var))), both float[n, L], where near
    rows are merged.

    Rows are clustered by their means (Sculley 2010); a cluster's Gaussian has the mean and the
    variances of the mixture of its rows' posteriors, so the first two moments of the whole are
    exact.
    """
    n = len(mu)
    components = int(np.clip(n // ROWS_PER_COMPONENT, 1, MOST_COMPONENTS))
    clustering = MiniBatchKMeans(
        components,
        batch_size=4_096,
        n_init=1,
        max_iter=30,
        random_state=seed % 2**32,  # scikit-learn takes no larger one
    )
    with threadpool_limits(1):  # another number of threads would add in another order
        cluster = torch.from_numpy(clustering.fit(mu.numpy()).labels_).long()
    rows = torch.bincount(cluster, minlength=components).double()
    kept = rows > 0

    def mean_of(values: Tensor) -> Tensor:
        total = torch.zeros(components, mu.shape[1]).double().index_add_(0, cluster, values)
        return total[kept] / rows[kept, None]

    mu = mu.double()
    var = log_var.double().exp()
    mean = mean_of(mu)
    variance = (mean_of(var + mu.square()) - mean.square()).clamp_min(1e-6)
    return Mixture(rows[kept] / n, mean, variance)
