"""Fitting: joint training of encoder and decoder by maximising the ELBO, then a prior fitted to the aggregate posterior."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from nelbo.schema import Schema
from training.config import Config
from training.data import Rows, Split
from training.likelihoods import Likelihoods
from training.model import (
    Auxiliary,
    Decoder,
    Encoder,
    Size,
    log_normal,
    negative_elbo,
    noise_points,
    smooth_start,
)
from training.prior import MAX_FIT_ROWS, Mixture, StandardNormal, fit_mixture

AVERAGE_EVERY = 5
"""Steps between two updates of the weights' running mean (Polyak & Juditsky 1992), which is what is kept."""

Coded = tuple[Tensor, Tensor]
"""Rows as codes int64[n, d] and log p(x | code) float64[n, d], as Likelihoods.encode gives them."""


class VAE(nn.Module):
    """The fitted parts together: what scores a row. `eps` float[S, L] are the noise points of its score."""

    eps: Tensor

    def __init__(self, likelihoods: Likelihoods, size: Size, points: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        d, k, ordinal = len(likelihoods.columns), likelihoods.codes, likelihoods.number_at
        self.likelihoods = likelihoods
        self.encoder = Encoder(smooth_start(d, k, size.encoder, ordinal), size.latent)
        self.decoder = Decoder(smooth_start(d, k, size.decoder, ordinal), size.latent)
        self.prior: StandardNormal | Mixture = StandardNormal()
        self.register_buffer("eps", noise_points(points, size.latent, seed))

    def terms(self, codes: Tensor, log_density: Tensor, eps: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Terms [n, d] and KL [n] of −ELBO, with z = mu + sigma · eps for eps float[S, n or 1, L] (reparameterisation).

        `seen` int64[n, d] is what encoder and context read in place of the codes, with cells hidden from them.
        """
        seen = codes if seen is None else seen
        mu, log_var = self.encoder(seen)
        z = mu + torch.exp(0.5 * log_var) * eps
        log_p_x = self.log_likelihood(self.decoder(z.flatten(0, 1), seen), codes) + log_density
        return negative_elbo(log_normal(z, mu, log_var), self.prior.log_prob(z), log_p_x)

    def log_likelihood(self, logits: Tensor, codes: Tensor) -> Tensor:
        """log p(code) float[S, n, d] from logits [d, S·n, K] for codes int64[n, d]."""
        points, d = logits.shape[1] // codes.shape[0], logits.shape[0]
        index = codes.T.repeat(1, points)[:, :, None]
        chosen = self.likelihoods.log_prob(logits).gather(-1, index)
        return chosen.reshape(d, points, codes.shape[0]).permute(1, 2, 0)

    def score(self, codes: Tensor, log_density: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Terms float64[n, d] and KL float64[n] at the fixed noise points."""
        terms, kl = self.terms(codes, log_density, self.eps[:, None, :], seen)
        return terms.double(), kl.double()


@dataclass
class History:
    """What happened in training, a row each time the held-out rows were scored; times are not in here."""

    step: list[int] = field(default_factory=list)
    epoch: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)

    def add(self, step: int, epoch: float, train: float, held_out: float) -> None:
        self.step.append(step)
        self.epoch.append(epoch)
        self.train.append(train)
        self.held_out.append(held_out)


Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps at most, held-out nelbo so far)."""


def fit_rows(schema: Schema, rows: Rows, split: Split, config: Config, seed: int, progress: Progress) -> tuple[VAE, History]:
    """Fit likelihoods to the split's fit rows, then the VAE to them, stopped by its stop rows."""
    likelihoods = Likelihoods.fit(schema, rows.numbers[split.fit], rows.codes[split.fit])
    train, stop = (coded(likelihoods, rows.take(part)) for part in (split.fit, split.stop))
    return fit(likelihoods, train, stop, config, seed, progress)


def coded(likelihoods: Likelihoods, rows: Rows) -> Coded:
    return likelihoods.encode(torch.from_numpy(rows.numbers), torch.from_numpy(rows.codes))


def fit(
    likelihoods: Likelihoods, train: Coded, stop: Coded, config: Config, seed: int, progress: Progress
) -> tuple[VAE, History]:
    """Minimise the mean nelbo of the training rows; keep the weights that score the stop rows best; fit the prior.

    The objective is −ELBO + 0.5 × the auxiliary decoder's −log p(x|z), with the KL warmed up from 0 to 1. A share of the rows
    has random cells hidden (shown as `other`) from encoder and context, so that both cope with unknown and missing cells.
    """
    codes, log_density = train
    n, d = codes.shape
    size = Size.for_table(d, n)
    vae = VAE(likelihoods, size, config.noise_points, seed)
    auxiliary = Auxiliary(d, likelihoods.codes, size.latent, size.decoder)
    generator = torch.Generator().manual_seed(seed)
    plan = Plan.for_rows(n, config)
    parameters = [*vae.parameters(), *auxiliary.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    average = torch.optim.swa_utils.AveragedModel(vae, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    smooth = cast(VAE, average.module)
    history, best, waited = History(), math.inf, 0
    kept = _state(vae)
    for step, rows in enumerate(_batches(n, plan, generator), start=1):
        batch, density = codes[rows], log_density[rows]
        seen = _hide(batch, likelihoods.other, config.hidden_rows, generator)
        eps = torch.randn(1, len(rows), size.latent, generator=generator)
        terms, kl, factorised = _objective(vae, auxiliary, batch, seen, eps)
        loss = (terms.sum(1) + plan.beta(step) * kl + config.auxiliary * factorised).mean()
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * plan.learning_rate(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, math.sqrt(d))
        optimiser.step()
        if step % AVERAGE_EVERY == 0:
            average.update_parameters(vae)
        if step % plan.every == 0:
            held_out = mean_nelbo(smooth, stop)
            history.add(step, step * plan.batch / n, float((terms.sum(1) + kl - density.sum(1)).mean().detach()), held_out)
            progress(step, plan.steps, held_out)
            if held_out < best:
                best, waited, kept = held_out, 0, _state(smooth)
            elif (waited := waited + 1) >= config.patience:
                break
    vae.load_state_dict(kept)
    vae.requires_grad_(False)
    vae.prior = fit_mixture(_posterior_samples(vae, codes, generator), seed)
    return vae, history


@dataclass(frozen=True)
class Plan:
    """How long and in which steps a table is trained on, by its number of rows."""

    batch: int
    steps: int
    warm_up: int
    every: int

    @staticmethod
    def for_rows(n: int, config: Config) -> "Plan":
        """Batches of about 1/50 of the rows (32 to 512); steps for `epochs` passes within the configured limits."""
        batch = min(n, 2 ** int(min(9, max(5, math.log2(n / 50)))))
        steps = min(config.max_steps, max(config.min_steps, config.epochs * n // batch))
        return Plan(batch, steps, warm_up=max(1, steps // 8), every=max(1, steps // 30))

    def beta(self, step: int) -> float:
        """The weight of the KL: 0 to 1 over the warm-up (Bowman et al. 2016), 1 from then on."""
        return min(1.0, step / self.warm_up)

    def learning_rate(self, step: int) -> float:
        """Up over the first 50 steps, then down to 0 as a cosine."""
        return min(1.0, step / 50) * 0.5 * (1 + math.cos(math.pi * step / (self.steps + 1)))


def mean_nelbo(vae: VAE, rows: Coded) -> float:
    """Mean nelbo of rows in nats, at the fixed noise points."""
    return float(nelbos(vae, rows).mean())


def nelbos(vae: VAE, rows: Coded) -> Tensor:
    """Nelbo float64[n] of rows, at the fixed noise points."""
    parts = []
    with torch.no_grad():
        for codes, log_density in zip(rows[0].split(2_048), rows[1].split(2_048), strict=True):
            terms, kl = vae.score(codes, log_density)
            parts.append(terms.sum(1) + kl)
    return torch.cat(parts)


def _objective(vae: VAE, auxiliary: Auxiliary, codes: Tensor, seen: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Terms [n, d], KL [n] and the factorised −log p(x|z) [n], at one noise point; densities inside codes are left out."""
    mu, log_var = vae.encoder(seen)
    z = mu + torch.exp(0.5 * log_var) * eps
    log_p_x = vae.log_likelihood(vae.decoder(z[0], seen), codes)
    terms, kl = negative_elbo(log_normal(z, mu, log_var), vae.prior.log_prob(z), log_p_x)
    return terms, kl, -vae.log_likelihood(auxiliary(z[0]), codes)[0].sum(1)


def _batches(n: int, plan: Plan, generator: torch.Generator) -> Iterator[Tensor]:
    """Row indices of each step: epoch after epoch in a new order, batches cut across the epochs' ends."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(plan.steps):
        if len(order) < plan.batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[: plan.batch]
        order = order[plan.batch :]


def _hide(codes: Tensor, other: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Codes with cells replaced by `other`: in a share of the rows, each cell with a probability between 0 and 1/2."""
    n, d = codes.shape
    rate = 0.5 * torch.rand(n, 1, generator=generator) * (torch.rand(n, 1, generator=generator) < share)
    return torch.where(torch.rand(n, d, generator=generator) < rate, other, codes)


def _posterior_samples(vae: VAE, codes: Tensor, generator: torch.Generator) -> Tensor:
    """One draw of z from q(z|x) for each of up to MAX_FIT_ROWS training rows: a sample of the aggregate posterior."""
    rows = torch.randperm(len(codes), generator=generator)[:MAX_FIT_ROWS]
    with torch.no_grad():
        parts = [vae.encoder(part) for part in codes[rows].split(4_096)]
    mu, log_var = (torch.cat(values) for values in zip(*parts, strict=True))
    return mu + torch.exp(0.5 * log_var) * torch.randn(mu.shape, generator=generator)


def _state(vae: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in vae.state_dict().items()}
