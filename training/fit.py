"""Fitting: joint training of encoder and decoder by maximising the ELBO, then a prior fitted to the
aggregate posterior."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nelbo.errors import InvalidInput
from nelbo.schema import Schema
from training.config import Config
from training.data import Rows, Split
from training.exemplars import Exemplars, share_for
from training.likelihoods import Likelihoods
from training.model import (
    Auxiliary,
    CodeTable,
    Decoder,
    Encoder,
    Size,
    log_normal,
    negative_elbo,
    noise_points,
)
from training.prior import Mixture, StandardNormal, condense

LARGEST = torch.finfo(torch.float16).max
AVERAGE_EVERY = 5
"""Steps between two updates of the weights' running mean (Polyak & Juditsky 1992), which is what is
kept."""

MOST_PASSES = 60
"""Small tables are passed over so often at most, unless 400 steps take more."""
MOST_CELLS = 25_000_000
"""So many cells go through training at most, two minutes' work or so, unless 200 steps take more;
wide decoders take fewer."""

Coded = tuple[Tensor, Tensor]
"""Rows as codes int64[n, d] and log p(x | code) float64[n, d], as Likelihoods.encode gives them."""


class VAE(nn.Module):
    """The fitted parts together. `eps` float[S, L] are the noise points of a row's score.

    Where numbers prevail, the exemplars' bound has `share` of a row's score and the VAE's the rest.
    """

    eps: Tensor

    def __init__(self, likelihoods: Likelihoods, size: Size, points: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.likelihoods = likelihoods
        self.encoder = Encoder(likelihoods.sizes, likelihoods.ordered, size)
        self.decoder = Decoder(likelihoods.sizes, likelihoods.ordered, size, likelihoods.even)
        self.prior: StandardNormal | Mixture = StandardNormal()
        self.exemplars: Exemplars | None = None
        self.share = 0.0
        self.register_buffer("eps", noise_points(points, size.latent, seed))

    def terms(
        self, codes: Tensor, log_density: Tensor, eps: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Terms [n, d] and KL [n] of −ELBO, with z = mu + sigma · eps for eps float[S, n or 1, L]
        (reparameterisation).

        `seen` int64[n, d] is what encoder and context read in place of the codes, with cells hidden
        from them.
        """
        seen = codes if seen is None else seen
        mu, log_var = self.encoder(seen)
        z = mu + torch.exp(0.5 * log_var) * eps
        log_p_x = (
            torch.stack(
                [self.likelihoods.log_prob(self.decoder(point, seen), codes) for point in z]
            )
            + log_density
        )
        return negative_elbo(log_normal(z, mu, log_var), self.prior.log_prob(z), log_p_x)

    def score(
        self, codes: Tensor, log_density: Tensor, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Terms float64[n, d] and KL float64[n] at the fixed noise points."""
        terms, kl = self.terms(codes, log_density, self.eps[:, None, :], seen)
        return terms.double(), kl.double()


@dataclass
class History:
    """What happened in training, a row each time the held-out rows were scored; times are not in
    here.

    `kept` is the place of the row whose weights were kept.
    """

    step: list[int] = field(default_factory=list)
    epoch: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    kept: int = 0

    def add(self, step: int, epoch: float, train: float, held_out: float) -> None:
        self.step.append(step)
        self.epoch.append(epoch)
        self.train.append(train)
        self.held_out.append(held_out)


Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps at most, held-out nelbo so far)."""


def fit_rows(
    schema: Schema, rows: Rows, split: Split, config: Config, seed: int, progress: Progress
) -> tuple[VAE, History]:
    """Fit likelihoods to the split's fit rows, then the VAE to them, stopped by its stop rows."""
    fitted = rows.take(split.fit)
    likelihoods = Likelihoods.fit(schema, fitted.numbers, fitted.codes, config.rare)
    train, stop = (coded(likelihoods, rows.take(part)) for part in (split.fit, split.stop))
    vae, history = fit(likelihoods, train, stop, config, seed, progress)
    vae.share = share_of_exemplars(schema, config)
    if vae.share:  # these may be the stop rows too, as only rows that calibrate must stay unseen
        known = rows.take(np.concatenate([split.fit, split.stop]))
        given = likelihoods.cut(torch.from_numpy(known.numbers)), torch.from_numpy(known.codes)
        vae.exemplars = Exemplars.fit(likelihoods, *given, seed, config.contaminated)
    return vae, history


def share_of_exemplars(schema: Schema, config: Config) -> float:
    """Weight of the exemplars' bound in a row's score: as configured, else by the columns'
    kinds."""
    return (
        share_for(len(schema.numbers), len(schema.categoricals))
        if config.exemplars is None
        else config.exemplars
    )


def coded(likelihoods: Likelihoods, rows: Rows) -> Coded:
    return likelihoods.encode(torch.from_numpy(rows.numbers), torch.from_numpy(rows.codes))


def fit(
    likelihoods: Likelihoods,
    train: Coded,
    stop: Coded,
    config: Config,
    seed: int,
    progress: Progress,
) -> tuple[VAE, History]:
    """Minimise the mean nelbo of the training rows; keep weights that the stop rows agree with; fit
    the prior.

    The objective is −ELBO + 0.5 × the auxiliary decoder's −log p(x|z), with the KL warmed up from 0
    to 1. A share of the rows has random cells hidden from encoder and context, so that q(z | any
    subset of the cells) exists.

    Steps are taken on `config.device`; random numbers are the processor's all the same, so that a
    seed means as much.

    What counts is not the held-out nelbo alone, which is at its best while the rows drawn are still
    easy to tell from real ones: the last weights are kept whose held-out nelbo is within `slack`
    nats a column of the best.
    """
    codes, log_density = train
    n, d = codes.shape
    size = Size.for_table(likelihoods.values, config.widest)
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(
            'device = "cuda" is set, but torch finds no CUDA device; leave it out to train on the'
            " processor"
        )
    device = torch.device(config.device)
    vae = VAE(likelihoods, size, config.noise_points, seed)
    auxiliary = Auxiliary(likelihoods.sizes, likelihoods.ordered, size, likelihoods.even).to(device)
    vae.to(device)
    generator = torch.Generator().manual_seed(seed)
    plan = Plan.for_table(n, d, size, config)
    parameters = [*vae.parameters(), *auxiliary.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    average = torch.optim.swa_utils.AveragedModel(
        vae, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(plan.decay)
    )
    smooth = cast(VAE, average.module)
    history, best, waited = History(), math.inf, 0
    kept = _state(vae)
    for step, rows in enumerate(_batches(n, plan, generator), start=1):
        batch, density = codes[rows].to(device), log_density[rows].to(device)
        seen = hide(batch, likelihoods, config.hidden_rows, generator)
        eps = torch.randn(1, len(rows), size.latent, generator=generator).to(device)
        terms, kl, factorised = objective(vae, auxiliary, batch, seen, eps)
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
            history.add(
                step,
                step * plan.batch / n,
                float((terms.sum(1) + kl - density.sum(1)).mean().detach()),
                held_out,
            )
            progress(step, plan.steps, held_out)
            if held_out < best + config.slack * d:
                best, waited, kept, history.kept = (
                    min(best, held_out),
                    0,
                    _state(smooth),
                    len(history.step) - 1,
                )
            elif (waited := waited + 1) >= config.patience:
                break
    vae.load_state_dict(kept)
    vae.cpu()
    _settle(vae)
    vae.prior = condense(*posteriors(vae, codes), seed)
    return vae, history


@dataclass(frozen=True)
class Plan:
    """How long and in which steps a table is trained on, by its number of rows."""

    batch: int
    steps: int
    warm_up: int
    every: int

    @staticmethod
    def for_table(n: int, columns: int, size: Size, config: Config) -> "Plan":
        """Batches of about 1/40 of the rows (32 to 256); steps for `epochs` passes within the
        configured limits."""
        batch = min(n, 2 ** int(min(8, max(5, math.log2(n / 40)))))
        enough = min(config.min_steps, max(400, MOST_PASSES * n // batch))
        affordable = max(
            200, MOST_CELLS * 128 // (columns * max(batch, 256) * (128 + size.decoder))
        )
        steps = min(config.max_steps, affordable, max(enough, config.epochs * n // batch))
        return Plan(
            batch, steps, warm_up=max(1, steps // 8), every=min(steps, max(20, steps // 30))
        )

    def beta(self, step: int) -> float:
        """The weight of the KL: 0 to 1 over the warm-up (Bowman et al. 2016), 1 from then on."""
        return min(1.0, step / self.warm_up)

    @property
    def decay(self) -> float:
        """Of the running mean of the weights, so that it looks back over about a tenth of all
        steps."""
        return max(0.0, 1 - 10 * AVERAGE_EVERY / self.steps)

    def learning_rate(self, step: int) -> float:
        """Up over the first 50 steps, then down to 0 as a cosine."""
        return min(1.0, step / 50) * 0.5 * (1 + math.cos(math.pi * step / (self.steps + 1)))


def score(vae: VAE, rows: Rows) -> tuple[Tensor, Tensor]:
    """Terms float64[n, d_t] and KL float64[n] as the artifact gives them: the weighted mean of the
    members' bounds."""
    parts = [
        part.split(_rows_at_once(vae))
        for part in (torch.from_numpy(rows.numbers), torch.from_numpy(rows.codes))
    ]
    with torch.no_grad():
        scored = [_blend(vae, numbers, codes) for numbers, codes in zip(*parts, strict=True)]
    terms, kl = (torch.cat(values) for values in zip(*scored, strict=True))
    return terms, kl


def _blend(vae: VAE, numbers: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    likelihoods = vae.likelihoods
    members = []
    if vae.share < 1:
        members.append((1 - vae.share, vae.score(*likelihoods.encode(numbers, codes))))
    if vae.exemplars is not None:
        members.append((vae.share, vae.exemplars.score(likelihoods.cut(numbers), codes)))
    terms, kl = (
        torch.stack([weight * part[i] for weight, part in members]).sum(0) for i in range(2)
    )
    return likelihoods.by_column(terms), kl


def mean_nelbo(vae: VAE, rows: Coded) -> float:
    """Mean nelbo of rows in nats, at the fixed noise points."""
    return float(nelbos(vae, rows).mean())


def nelbos(vae: VAE, rows: Coded) -> Tensor:
    """Nelbo float64[n] of rows by the VAE alone, at the fixed noise points."""
    parts = []
    with torch.no_grad():
        for codes, log_density in zip(
            *(part.split(_rows_at_once(vae)) for part in rows), strict=True
        ):
            terms, kl = vae.score(codes.to(vae.eps.device), log_density.to(vae.eps.device))
            parts.append((terms.sum(1) + kl).cpu())
    return torch.cat(parts)


def posteriors(vae: VAE, codes: Tensor) -> tuple[Tensor, Tensor]:
    """mu, log_var float[n, L] of q(z|x) of rows."""
    with torch.no_grad():
        parts = [vae.encoder(part) for part in codes.split(_rows_at_once(vae))]
    mu, log_var = (torch.cat(values) for values in zip(*parts, strict=True))
    return mu, log_var


def _rows_at_once(vae: VAE) -> int:
    """Rows whose logits stay near 16 MiB."""
    return max(16, min(512, 2**22 // sum(vae.likelihoods.sizes)))


def objective(
    vae: VAE, auxiliary: Auxiliary, codes: Tensor, seen: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Terms [n, d], KL [n] and the factorised −log p(x|z) [n], at one noise point; densities inside
    codes are left out."""
    mu, log_var = vae.encoder(seen)
    z = mu + torch.exp(0.5 * log_var) * eps
    log_p_x = vae.likelihoods.log_prob(vae.decoder(z[0], seen), codes)[None]
    terms, kl = negative_elbo(log_normal(z, mu, log_var), vae.prior.log_prob(z), log_p_x)
    return terms, kl, -vae.likelihoods.log_prob(auxiliary(z[0]), codes).sum(1)


def _batches(n: int, plan: Plan, generator: torch.Generator) -> Iterator[Tensor]:
    """Row indices of each step: epoch after epoch in a new order, batches cut across the epochs'
    ends."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(plan.steps):
        if len(order) < plan.batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[: plan.batch]
        order = order[plan.batch :]


def hide(
    codes: Tensor, likelihoods: Likelihoods, share: float, generator: torch.Generator
) -> Tensor:
    """Codes with cells hidden: in a share of the rows, each cell (with all its fields) with a
    probability between 0 and 1/2."""
    n, cells = len(codes), len(likelihoods.fitted)
    rate = (
        0.5
        * torch.rand(n, 1, generator=generator)
        * (torch.rand(n, 1, generator=generator) < share)
    )
    hidden = (torch.rand(n, cells, generator=generator) < rate).to(codes.device)
    return torch.where(hidden[:, likelihoods.column_of], likelihoods.hidden, codes)


def _settle(vae: VAE) -> None:
    """End training: weights are rounded to 16 bits, which is how graphs store them.

    A weight too large for 16 bits, such as the logit of a masked code, becomes the largest that
    they hold. An infinite logit would stay infinite whatever is added to it.
    """
    vae.requires_grad_(False)
    for module in vae.modules():
        if isinstance(module, CodeTable):
            module.settle()
    for weight in vae.parameters():
        weight.copy_(weight.clamp(-LARGEST, LARGEST).half())


def _state(vae: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in vae.state_dict().items()}
