"""The variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114) and its ELBO.

Shapes: n rows, d columns, L latent variables, S noise points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor, nn

from .arrays import Array
from .data import Rows
from .decoder import Decoder
from .exemplars import Exemplars
from .gaussians import log_normal, noise_points
from .likelihoods import Likelihoods
from .networks import Encoder, Size
from .nodes import Value
from .prior import Mixture, StandardNormal

Coded = tuple[Tensor, Tensor]
"""Rows as codes int64[n, d] and log p(x | code) float64[n, d], as Likelihoods.encode gives them."""


@dataclass(frozen=True)
class Bound(Generic[Array]):
    """−ELBO of codes, of each row: −E_q[log p(code_j | ·)] float[n, d] and KL(q(z|x) ‖ p(z))
    float[n], and the z float[S, n, L] that they are means over."""

    terms: Array
    kl: Array
    z: Array


@dataclass(frozen=True)
class Scored(Generic[Array]):
    """Scores of encoded rows as the artifact gives them: terms float64[n, d_t] and KL float64[n] of
    the nelbo, and what each member finds the cells to cost, M times float64[n, d_t].

    The exemplars' cost is their term. The VAE's is its term relative to what so rare a value costs
    anyway (masses.rarities), which makes wide and narrow columns alike. Of a rarer category both
    are the cost of its cluster.
    """

    terms: Array
    kl: Array
    costs: Sequence[Array]

    @property
    def nelbo(self) -> Array:
        return self.terms.sum(1) + self.kl


class VAE(nn.Module):
    """The fitted parts together. `eps` float[S, L] are the noise points of a row's score.

    A row's score is `share` × the exemplars' bound + (1 − `share`) × the VAE's bound. `share` is
    above 0 if most columns are numbers.
    """

    eps: Tensor

    def __init__(self, likelihoods: Likelihoods, size: Size, points: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        sizes = likelihoods.sizes
        ordered = likelihoods.ordered
        self.likelihoods = likelihoods
        self.encoder = Encoder(sizes, ordered, size)
        self.decoder = Decoder(sizes, ordered, size, likelihoods.masses.even)
        self.prior: StandardNormal | Mixture = StandardNormal()
        self.exemplars: Exemplars | None = None
        self.share = 0.0
        self.register_buffer("eps", noise_points(points, size.latent, seed))

    def bound(
        self, codes: Array, seen: Array, eps: Tensor, observed: Tensor | None = None
    ) -> Bound[Array]:
        """−ELBO of codes int64[n, d] with z = mu + sigma · eps (reparameterisation) at the noise
        points eps float[S, n or 1, L].

        `seen` int64[n, d] are the codes that the encoder reads: the same ones, or the same with
        cells hidden. `observed` bool[n, d] are the cells that the decoder is told beforehand, for
        one noise point; none by default.
        """
        points = len(eps)
        mu, log_var = self.encoder(seen)
        z = mu + (0.5 * log_var).exp() * eps

        every = z.reshape(-1, self.eps.shape[1])
        log_p_x = self.log_p_x(every, _repeated(codes, points), observed)
        log_p_x = log_p_x.reshape(points, -1, len(self.likelihoods.columns))
        terms, kl = negative_elbo(log_normal(z, mu, log_var), self.prior.log_prob(z), log_p_x)
        return Bound(terms, kl, z)

    def log_p_x(self, z: Array, codes: Array, observed: Tensor | None = None) -> Array:
        """log p(code_j | codes_<j, observed codes, z) float[m, d] of codes int64[m, d] at z
        float[m, L]. In a graph nothing is observed."""
        masses = self.likelihoods.masses
        if isinstance(z, Value):
            rows = len(self.eps) * z.nodes.rows
            return masses.with_fixed(self.decoder.learned(z, codes, rows), codes)
        return masses.log_prob(self.decoder(z, codes, observed), codes)

    def score(self, codes: Array, log_density: Array) -> tuple[Array, Array]:
        """Terms float64[n, d] and KL float64[n] of −ELBO of rows at the fixed noise points. What
        −log p(x | code) costs is in the terms."""
        bound = self.bound(codes, codes, self.eps[:, None, :])
        return bound.terms.double() - log_density, bound.kl.double()

    def score_rows(self, numbers: Array, codes: Array) -> Scored[Array]:
        """The scores of encoded rows: the weighted mean of the members' bounds, and each member's
        costs."""
        likelihoods = self.likelihoods
        members = []
        costs = []
        if self.share < 1:
            x, log_density = likelihoods.encode(numbers, codes)
            terms, kl = self.score(x, log_density)
            members.append((1 - self.share, terms, kl))
            costs.append(terms + log_density + likelihoods.rarity(numbers, codes, x))
        if self.exemplars is not None:
            categories = likelihoods.categories
            fields = likelihoods.numbers.fields.split(numbers)
            terms, kl = self.exemplars.score(fields, categories.encode(codes))
            costs.append(terms)
            if categories.has_rarer:
                terms = terms - likelihoods.of_categories(categories.log_shares(codes))
            members.append((self.share, terms, kl))
        return Scored(
            likelihoods.by_column(_total([weight * terms for weight, terms, _ in members])),
            _total([weight * kl for weight, _, kl in members]),
            [likelihoods.by_column(of_member) for of_member in costs],
        )


def negative_elbo(log_q: Array, log_p_z: Array, log_p_x: Array) -> tuple[Array, Array]:
    """Terms −E_q[log p(x_j | ·)] float[n, d] and KL(q(z|x) ‖ p(z)) float[n], means over S noise
    points.

    −ELBO = terms.sum(1) + kl ≥ −log p(x) in expectation over the noise. log_q, log_p_z float[S, n];
    log_p_x float[S, n, d].
    """
    return -log_p_x.mean(0), (log_q - log_p_z).mean(0)


def _total(parts: Sequence[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _repeated(codes: Array, times: int) -> Array:
    """The rows of codes [n, d] once for each noise point, [S · n, d]."""
    return codes.repeat(times, 1) if times > 1 else codes


def coded(likelihoods: Likelihoods, rows: Rows) -> Coded:
    return likelihoods.encode(torch.from_numpy(rows.numbers), torch.from_numpy(rows.codes))


def score(vae: VAE, rows: Rows) -> Scored[Tensor]:
    """The scores of rows as the artifact gives them."""
    numbers = torch.from_numpy(rows.numbers).split(_rows_at_once(vae))
    codes = torch.from_numpy(rows.codes).split(_rows_at_once(vae))
    with torch.no_grad():
        parts = [vae.score_rows(*part) for part in zip(numbers, codes, strict=True)]
    of_members = zip(*(part.costs for part in parts), strict=True)
    return Scored(
        torch.cat([part.terms for part in parts]),
        torch.cat([part.kl for part in parts]),
        [torch.cat(costs) for costs in of_members],
    )


def mean_nelbo(vae: VAE, rows: Coded) -> float:
    """Mean nelbo of rows in nats, at the fixed noise points."""
    return float(nelbos(vae, rows).mean())


def nelbos(vae: VAE, rows: Coded) -> Tensor:
    """Nelbo float64[n] of rows by the VAE alone, at the fixed noise points."""
    device = vae.eps.device
    codes, log_density = (part.split(_rows_at_once(vae)) for part in rows)
    parts = []
    with torch.no_grad():
        for part in zip(codes, log_density, strict=True):
            terms, kl = vae.score(*(values.to(device) for values in part))
            parts.append((terms.sum(1) + kl).cpu())
    return torch.cat(parts)


def posteriors(vae: VAE, codes: Tensor) -> tuple[Tensor, Tensor]:
    """mu, log_var float[n, L] of q(z|x) of rows."""
    with torch.no_grad():
        parts = [vae.encoder(part) for part in codes.split(_rows_at_once(vae))]
    mu, log_var = zip(*parts, strict=True)
    return torch.cat(mu), torch.cat(log_var)


def _rows_at_once(vae: VAE) -> int:
    """Rows whose logits stay near 16 MiB."""
    return max(16, min(512, 2**22 // sum(vae.likelihoods.sizes)))
