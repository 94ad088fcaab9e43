"""What the parts of the model are worth: named variants of it on one table, a line each in a
results file.

    python -m tests.benchmarks.variants [NAME ...] --train TRAIN --test TEST --target COLUMN
    [--seeds 0] [--out FILE.csv]

Without a NAME all are run. A variant changes one thing: the configuration, the sizes of the
networks, how bins learn, or the prior that is fitted last. The figures are those of
tests.benchmarks.synthetic, with the mean nelbo and KL of TEST by the VAE alone, the nats of log
p(x|z) that shuffling z between rows costs (whether the decoder uses z), and the CPU seconds of the
fit. What single settings of a score are worth says tests.benchmarks.anomaly.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pyarrow as pa
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from nelbo.encoding import Encoded, encode
from nelbo.engine import Engine
from tests.benchmarks.synthetic import Figures, judge, read
from training import data, fit, networks
from training.config import Config
from training.export import export
from training.prior import Mixture, condense
from training.vae import VAE, posteriors

Prior = Callable[[Tensor, Tensor, int], Mixture]


def standard_normal(mu: Tensor, log_var: Tensor, seed: int) -> Mixture:
    latent = mu.shape[1]
    return Mixture(torch.ones(1), torch.zeros(1, latent), torch.ones(1, latent))


def all_posteriors(mu: Tensor, log_var: Tensor, seed: int) -> Mixture:
    return Mixture(torch.full((len(mu),), 1 / len(mu)), mu, log_var.exp())


def few_gaussians(mu: Tensor, log_var: Tensor, seed: int) -> Mixture:
    """32 components by EM on draws from the posteriors."""
    draws = mu + torch.exp(log_var / 2) * torch.randn(
        mu.shape, generator=torch.Generator().manual_seed(seed)
    )
    found = GaussianMixture(32, covariance_type="diag", random_state=seed, max_iter=200).fit(
        draws.numpy()
    )
    return Mixture(
        *(torch.from_numpy(values) for values in (found.weights_, found.means_, found.covariances_))
    )


@dataclass(frozen=True)
class Variant:
    """What differs from the default: settings of Config, fields of Size, the prior, the functions
    of rank that bins share."""

    config: Mapping[str, Any] = field(default_factory=dict)
    size: Mapping[str, Any] = field(default_factory=dict)
    prior: Prior = condense
    basis: Callable[[int], Tensor] = networks.cosines


VARIANTS: dict[str, Variant] = {
    "default": Variant(),
    "no auxiliary decoder": Variant({"auxiliary": 0.0}),
    "auxiliary decoder at 1": Variant({"auxiliary": 1.0}),
    "no hidden cells": Variant({"hidden_rows": 0.0}),
    "stopped at the best held-out nelbo": Variant({"slack": 0.0}),
    "no weight decay": Variant({"weight_decay": 0.0}),
    "half as many steps": Variant({"min_steps": 800, "max_steps": 2_000, "epochs": 8}),
    "twice as many steps": Variant({"min_steps": 3_200, "max_steps": 8_000, "epochs": 32}),
    "decoder of 32": Variant(size={"decoder": 32}),
    "decoder of 128": Variant(size={"decoder": 128}),
    "wide encoder": Variant(size={"encoder": 256}),
    "small latent": Variant(size={"latent": 4}),
    "large latent": Variant(size={"latent": 32}),
    "bins that learn alone": Variant(basis=torch.eye),
    "prior N(0, I)": Variant(prior=standard_normal),
    "prior of 32 Gaussians": Variant(prior=few_gaussians),
    "prior of all posteriors": Variant(prior=all_posteriors),
}


def measure(variant: Variant, train: Path, test: Path, target: str, seed: int) -> Figures:
    config, began = Config().model_copy(update=variant.config), time.process_time()
    training = data.read(data.TrainingSource(train), config, seed)

    def size(codes: list[int], rows: int, widest: int) -> networks.Size:
        return replace(networks.Size.for_table(codes, rows, widest), **variant.size)

    with (
        mock.patch.object(fit, "Size", mock.Mock(for_table=size)),
        mock.patch.object(fit, "condense", variant.prior),
        mock.patch.object(networks, "cosines", variant.basis),
    ):
        vae, history = fit.fit_rows(
            training.schema, training.rows, training.split, config, seed, lambda *_: None
        )
    seconds = time.process_time() - began
    given, wanted = (read(path) for path in (train, test))
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder), vae, "variant", training, config, seed)
        engine = Engine.load(Path(folder))
        made = engine.generate(seed, 0, len(given)).batch.to_pandas()
        rows = encode(pa.RecordBatch.from_pandas(wanted, preserve_index=False), training.schema)
        vae.share, vae.exemplars = 0.0, None
        export(Path(folder), vae, "variant", training, config, seed)
        costs = Engine.load(Path(folder)).costs(rows.numbers, rows.codes)
    figures = {
        "nelbo": float(costs.nelbo.mean()),
        "kl": float(costs.kl.mean()),
        "z": worth_of_z(vae, rows),
        "fit CPU s": seconds,
    }
    return {
        **judge(given, wanted, made, target),
        **figures,
        "steps": float(history.step[history.kept]),
    }


def worth_of_z(vae: VAE, rows: Encoded) -> float:
    """Mean nats of log p(x|z) at the means of q(z|x) that are lost where each row has the z of
    another."""
    x, _ = vae.likelihoods.encode(torch.from_numpy(rows.numbers), torch.from_numpy(rows.codes))
    z, _ = posteriors(vae, x)
    with torch.no_grad():
        own, other = (
            vae.likelihoods.masses.log_prob(vae.decoder(given, x), x).sum(1)
            for given in (z, z.roll(1, 0))
        )
    return float((own - other).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", default=list(VARIANTS), help=", ".join(VARIANTS)
    )
    for name in ("train", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    unknown = sorted(set(asked.names) - set(VARIANTS))
    if unknown:
        parser.error(f"no variant is called {unknown[0]!r}; there are {', '.join(VARIANTS)}")
    torch.set_num_threads(1)
    for name in asked.names:
        for seed in asked.seeds:
            figures = measure(VARIANTS[name], asked.train, asked.test, asked.target, seed)
            row = pd.DataFrame(
                [{"variant": name, "table": asked.train.stem, "seed": seed, **figures}]
            ).round(4)
            print(row.to_string(index=False), flush=True)
            if asked.out:
                asked.out.parent.mkdir(parents=True, exist_ok=True)
                row.to_csv(asked.out, mode="a", header=not asked.out.exists(), index=False)


if __name__ == "__main__":
    main()
