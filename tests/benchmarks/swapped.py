"""Which member finds rows whose cells do not belong together: the VAE, the exemplars, or the mean
of both?

    python -m tests.benchmarks.swapped --train TRAIN --test TEST [--cells 1 2 4] [--seed 0]

Both members are fitted to TRAIN. One in ten of 6,000 TEST rows gets some cells from another row, so
that every value is usual in its column and only the row is not. The mean weighs each bound by the
spread of its scores.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from nelbo.encoding import encode
from training import fit
from training.config import Config
from training.data import Rows, TrainingSource, read
from training.vae import score

ROWS, ONE_IN = 6_000, 10


def swapped(rows: Rows, cells: int, rng: np.random.Generator) -> Rows:
    """Every tenth row with some cells of another row."""
    numbers, codes = rows.numbers.copy(), rows.codes.copy()
    for row in range(0, len(rows), ONE_IN):
        other = rng.integers(len(rows))
        for j in rng.choice(numbers.shape[1] + codes.shape[1], cells, replace=False):
            part, given, at = (
                (numbers, rows.numbers, j)
                if j < numbers.shape[1]
                else (codes, rows.codes, j - numbers.shape[1])
            )
            part[row, at] = given[other, at]
    return Rows(numbers, codes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    training = read(TrainingSource(given.train), Config(), given.seed)
    config = Config(exemplars=0.5)
    vae, _ = fit.fit_rows(
        training.schema, training.rows, training.split, config, given.seed, lambda *_: None
    )
    assert vae.exemplars is not None
    with TrainingSource(given.test).open() as table:
        encoded = encode(
            pa.Table.from_batches(table.batches()).combine_chunks().to_batches()[0], training.schema
        )
    rows = Rows(encoded.numbers, encoded.codes).take(np.arange(min(ROWS, len(encoded.rows))))
    odd = np.arange(len(rows)) % ONE_IN == 0
    for cells in given.cells:
        made = swapped(rows, cells, np.random.default_rng(given.seed))
        scores = {}
        for share, name in ((0.0, "VAE"), (1.0, "exemplars")):
            vae.share = share
            scores[name] = score(vae, made).nelbo.numpy()
        scores["mean"] = sum(
            values / np.subtract(*np.percentile(values[~odd], [75, 25]))
            for values in scores.values()
        )
        for name, values in scores.items():
            figures = 100 * roc_auc_score(odd, values), 100 * average_precision_score(odd, values)
            print(
                f"{cells} cells swapped  {name:10} AUROC {figures[0]:5.1f}  AP {figures[1]:5.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
