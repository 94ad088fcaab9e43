"""Fitting: joint training of encoder and decoder by maximising the ELBO, then a prior fitted to the
aggregate posterior."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nelbo.errors import InvalidInput
from nelbo.schema import Schema

from .config import Config
from .copula import fit_copula, start_from
from .data import Rows, Split
from .exemplars import Exemplars, share_for
from .likelihoods import Likelihoods
from .networks import Auxiliary, CodeTable, Size
from .prior import condense
from .vae import VAE, Coded, coded, mean_nelbo, posteriors

LARGEST = torch.finfo(torch.float16).max
AVERAGE_EVERY = 5
"""Steps between two updates of the weights' running mean (Polyak & Juditsky 1992). The mean is what
training keeps."""

MOST_PASSES = 60
"""Maximum number of passes over a small table, unless 400 steps take more."""
FEW_OBSERVED = 3
"""In half of the rows with hidden cells, at most this many are observed."""
MOST_CELLS = 25_000_000
"""Maximum number of cells that go through training, which takes about two minutes. At least 200
steps are taken; a wide decoder lowers the maximum."""
LONGEST_STRIDE = 2.0
"""Maximum factor by which a wide table's steps are larger because they are fewer."""


@dataclass
class History:
    """The course of training: one entry for each time that the held-out rows were scored. `kept` is
    the index of the entry whose weights were kept. It holds no times, so that equal runs give equal
    files."""

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


@contextmanager
def torch_for_a_while(threads: int) -> Iterator[None]:
    """Run torch with this number of threads, and restore the caller's number of threads, random
    state and rule about deterministic algorithms afterwards."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)


StepProgress = Callable[[int, int, float], None]
"""Called with (steps done, steps at most, held-out nelbo so far)."""


def fit_rows(
    schema: Schema, rows: Rows, split: Split, config: Config, seed: int, progress: StepProgress
) -> tuple[VAE, History]:
    """Fit likelihoods to the split's fit rows, then the VAE to them, stopped by its stop rows."""
    fitted = rows.take(split.fitted)
    likelihoods = Likelihoods.fit(schema, fitted.numbers, fitted.codes, config.rare)
    train = coded(likelihoods, fitted)
    stop = coded(likelihoods, rows.take(split.stop))
    vae, history = fit_vae(likelihoods, train, stop, config, seed, progress)

    vae.share = share_of_exemplars(schema, config)
    if vae.share:
        # The stop rows may be exemplars too: only rows that calibrate must stay unseen.
        seen = rows.take(np.concatenate([split.fitted, split.stop]))
        x = likelihoods.numbers.fields.split(torch.from_numpy(seen.numbers))
        codes = torch.from_numpy(seen.codes)
        vae.exemplars = Exemplars.fit(likelihoods, x, codes, seed, config.contaminated)
    return vae, history


def share_of_exemplars(schema: Schema, config: Config) -> float:
    """Weight of the exemplars' bound in a row's score: the configured one, or one that follows from
    the columns' kinds."""
    if config.exemplars is not None:
        return config.exemplars
    return share_for(len(schema.numbers), len(schema.categoricals))


def fit_vae(
    likelihoods: Likelihoods,
    train: Coded,
    stop: Coded,
    config: Config,
    seed: int,
    progress: StepProgress,
) -> tuple[VAE, History]:
    """Minimise the mean nelbo of the training rows, with AdamW; stop by the stop rows; then fit the
    prior.

    The loss is −ELBO + `auxiliary` × the auxiliary decoder's −log p(x|z), with the KL's weight
    warmed up from 0 to 1. A share of the rows has hidden cells, so that the model learns p(hidden
    cells | observed cells) for any cells: E[log p(hidden | z, observed)] with z from q(z |
    observed), a bound on it (Sohn, Lee & Yan 2015, section 4.2).

    Training goes on past the best held-out nelbo, because generated rows still improve there. The
    weights that are kept are the last ones whose held-out nelbo is within `slack` nats per column
    of the best.

    Steps are taken on `config.device`. Random numbers always come from the processor, so that a
    seed gives the same ones on every device.
    """
    codes, log_density = train
    n, d = codes.shape
    size = Size.for_table(likelihoods.values, n, config.widest)
    schedule = Schedule.for_table(n, d, size, config)
    device = _device(config)
    generator = torch.Generator().manual_seed(seed)

    vae = VAE(likelihoods, size, config.noise_points, seed)
    if size.wide:
        start_from(vae.decoder, fit_copula(codes, likelihoods))
    auxiliary = Auxiliary(likelihoods.sizes, likelihoods.ordered, size, likelihoods.masses.even)
    vae.to(device)
    auxiliary.to(device)
    descent = _Descent(
        [*vae.parameters(), *auxiliary.parameters()], schedule, config, clip=math.sqrt(d)
    )
    average = _running_mean(vae, schedule)
    smooth = cast(VAE, average.module)
    stopping = _Stopping(vae, config.slack * d, config.patience)
    history = History()

    for step, rows in enumerate(_batches(n, schedule, generator), start=1):
        batch = codes[rows].to(device)
        hidden = hidden_cells(len(rows), likelihoods, config.hidden_rows, generator)
        eps = torch.randn(1, len(rows), size.latent, generator=generator)
        terms, kl, factorised = objective(vae, auxiliary, batch, hidden.to(device), eps.to(device))
        loss = (terms.sum(1) + schedule.beta(step) * kl + config.auxiliary * factorised).mean()
        descent.step(step, loss)
        if step % AVERAGE_EVERY == 0:
            average.update_parameters(vae)
        if step % schedule.every:
            continue

        nelbo = (terms.sum(1) + kl).detach().cpu() - log_density[rows].sum(1)
        of_whole_rows = float(nelbo[~hidden.any(1)].mean())
        held_out = mean_nelbo(smooth, stop)
        history.add(step, step * schedule.batch / n, of_whole_rows, held_out)
        progress(step, schedule.steps, held_out)
        if stopping.keeps(smooth, held_out):
            history.kept = len(history.step) - 1
        elif stopping.is_over:
            break

    vae.load_state_dict(stopping.weights)
    vae.cpu()
    _settle(vae)
    vae.prior = condense(*posteriors(vae, codes), seed)
    return vae, history


def _device(config: Config) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(
            'device = "cuda" is set, but torch finds no CUDA device; leave it out to train on the'
            " processor"
        )
    return torch.device(config.device)


def _running_mean(vae: VAE, schedule: "Schedule") -> torch.optim.swa_utils.AveragedModel:
    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(schedule.decay)
    return torch.optim.swa_utils.AveragedModel(vae, multi_avg_fn=decay)


class _Descent:
    """AdamW with the schedule's learning rate and clipped gradients."""

    def __init__(
        self, weights: list[nn.Parameter], schedule: "Schedule", config: Config, clip: float
    ) -> None:
        self.weights = weights
        self.schedule = schedule
        self.highest_rate = config.learning_rate
        self.clip = clip
        self.optimiser = torch.optim.AdamW(
            weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )

    def step(self, step: int, loss: Tensor) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.highest_rate * self.schedule.learning_rate(step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimiser.step()


class _Stopping:
    """Keeps the last weights whose held-out nelbo is within `slack` nats of the best one. Training
    ends after `patience` checks in a row that are not."""

    def __init__(self, vae: nn.Module, slack: float, patience: int) -> None:
        self.weights = _weights(vae)
        self.slack = slack
        self.patience = patience
        self.best = math.inf
        self.waited = 0

    def keeps(self, vae: nn.Module, held_out: float) -> bool:
        """Take the weights if they are good enough."""
        if not held_out < self.best + self.slack:
            self.waited += 1
            return False
        self.weights = _weights(vae)
        self.best = min(self.best, held_out)
        self.waited = 0
        return True

    @property
    def is_over(self) -> bool:
        return self.waited >= self.patience


def _weights(vae: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in vae.state_dict().items()}


@dataclass(frozen=True)
class Schedule:
    """The number and size of the steps, which follow from the number of rows and columns."""

    batch: int
    steps: int
    warm_up: int
    every: int
    stride: float = 1.0
    """Factor of the highest learning rate."""

    @staticmethod
    def for_table(n: int, columns: int, size: Size, config: Config) -> "Schedule":
        """Batches of about 1/40 of the rows (32 to 256); steps for `epochs` passes within the
        configured limits.

        A wide table that cannot afford these steps takes larger ones, by the square root of the
        factor by which their number is cut.
        """
        batch = min(n, 2 ** int(min(8, max(5, math.log2(n / 40)))))
        enough = min(config.min_steps, max(400, MOST_PASSES * n // batch))
        cost = columns * max(batch, 256) * (128 + size.decoder)
        affordable = max(200, MOST_CELLS * 128 // cost)
        planned = min(config.max_steps, max(enough, config.epochs * n // batch))
        steps = min(planned, affordable)
        warm_up = max(1, steps // 8)
        every = min(steps, max(20, steps // 30))
        stride = min(LONGEST_STRIDE, math.sqrt(planned / steps)) if size.wide else 1.0
        return Schedule(batch, steps, warm_up, every, stride)

    def beta(self, step: int) -> float:
        """The weight of the KL: 0 to 1 over the warm-up (Bowman et al. 2016), 1 from then on."""
        return min(1.0, step / self.warm_up)

    @property
    def decay(self) -> float:
        """Decay of the weights' running mean, which covers about the last tenth of all steps."""
        return max(0.0, 1 - 10 * AVERAGE_EVERY / self.steps)

    def learning_rate(self, step: int) -> float:
        """Factor of the learning rate: it rises over the first 50 steps, then falls to 0 as a
        cosine."""
        fall = 0.5 * (1 + math.cos(math.pi * step / (self.steps + 1)))
        return self.stride * min(1.0, step / 50) * fall


def objective(
    vae: VAE, auxiliary: Auxiliary, codes: Tensor, hidden: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Terms [n, d] and KL [n] of −ELBO at one noise point, without −log p(x | code), which no
    weight changes, and the auxiliary decoder's −log p(x|z) [n].

    In rows with `hidden` cells bool[n, d] the others are observed. They have no terms, and the row
    no KL: q(z | observed) is the prior there.
    """
    masses = vae.likelihoods.masses
    is_partial = hidden.any(1)
    observed = is_partial[:, None] & ~hidden
    bound = vae.bound(codes, torch.where(hidden, masses.hidden, codes), eps, observed)
    factorised = masses.log_prob(auxiliary(bound.z[0]), codes)
    terms = torch.where(observed, 0.0, bound.terms)
    return terms, torch.where(is_partial, 0.0, bound.kl), -factorised.sum(1)


def _batches(n: int, schedule: Schedule, generator: torch.Generator) -> Iterator[Tensor]:
    """Row indices of each step: every epoch has a new order, and a batch may begin in one epoch and
    end in the next."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(schedule.steps):
        if len(order) < schedule.batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield order[: schedule.batch]
        order = order[schedule.batch :]


def hidden_cells(
    n: int, likelihoods: Likelihoods, share: float, generator: torch.Generator
) -> Tensor:
    """The cells to hide bool[n, d] of n rows in random order: of a cell, all its fields. The first
    rows, `share` of them, have hidden cells, and the last one has none.

    In half of those, all but a few are hidden, as where rows of one class are asked for. In the
    others, each is hidden with a probability that is the row's own.
    """
    cells = len(likelihoods.fitted)
    u = torch.rand(n, cells, generator=generator)
    few = torch.randint(1, FEW_OBSERVED + 1, (n, 1), generator=generator)
    all_but_few = u.argsort(1).argsort(1) >= few
    some = u < torch.rand(n, 1, generator=generator)
    upto = torch.arange(1, n + 1)[:, None] / n
    hidden = torch.where(upto < share / 2, all_but_few, some & (upto < share))
    return hidden[:, likelihoods.column_of]


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
