"""What a model of a column of thousands of categories knows about them.

    python -m tests.benchmarks.categories [--max-categories 200] [--seed 0]

40,000 flights are planted: 4,000 planes of 12 carriers and 3,000 towns of 50 states. Nine of ten
planes fly for one carrier and nine of ten towns are in one state, the others have two; no rule
holds exactly. Printed are the seconds of the processor to fit, the size of the artifact and, for
planes and towns beyond the `max_categories` most frequent:

- AUROC: how well surprise tells new rows whose plane or town is from another row, and goes with
  other values, from new rows as they are;
- pairs: the share of generated rows whose plane flies for their carrier, whose town is in their
  state.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from nelbo.engine import Engine
from training.config import Config
from training.data import FrameSource
from training.pipeline import train

ROWS, NEW_ROWS, MADE_ROWS = 40_000, 5_000, 20_000
LOYAL = 0.9

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Members:
    """Members of groups: how often each occurs, its group, and a second one, mostly the same."""

    share: NDArray[np.float64]
    first: Integers
    second: Integers

    @classmethod
    def planted(cls, count: int, groups: int, rng: np.random.Generator) -> Self:
        weight = np.exp(rng.normal(0, 0.9, count))
        first = rng.choice(groups, count, p=rng.dirichlet(np.full(groups, 2.0)))
        second = np.where(rng.random(count) < LOYAL, first, rng.integers(0, groups, count))
        return cls(weight / weight.sum(), first, second)

    def drawn(self, n: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
        """n members and the group of each."""
        member = rng.choice(len(self.share), n, p=self.share)
        is_first = rng.random(n) < 0.5
        return member, np.where(is_first, self.first[member], self.second[member])

    def belong(self, member: Integers, group: Integers) -> NDArray[np.bool_]:
        return np.asarray((self.first[member] == group) | (self.second[member] == group))


PLANTED = np.random.default_rng(0)
PLANES = Members.planted(4_000, 12, PLANTED)
TOWNS = Members.planted(3_000, 50, PLANTED)
GROUPS = {"plane": (PLANES, "carrier"), "town": (TOWNS, "state")}


def flights(n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng([seed, 1])
    plane, carrier = PLANES.drawn(n, rng)
    town, state = TOWNS.drawn(n, rng)
    hour = np.clip(rng.normal(9 + carrier % 4 * 2, 3, n), 0, 23)
    return pa.table(
        {
            "plane": [f"N{each}" for each in plane],
            "carrier": [f"C{each}" for each in carrier],
            "town": [f"T{each}" for each in town],
            "state": [f"S{each}" for each in state],
            "latitude": pa.array(np.round(rng.normal(25 + state % 25, 1.5), 2)),
            "hour": pa.array(np.rint(hour).astype(np.int64)),
            "distance": pa.array(np.rint(np.exp(rng.normal(6 + carrier % 5 / 5, 0.3)))),
            "delay": pa.array(np.rint(rng.gamma(1.5, 10 + carrier, n))),
            "status": rng.choice(["ok", "late", "off"], n, p=[0.8, 0.17, 0.03]).tolist(),
        }
    )


def numbers_of(table: pa.Table | pa.RecordBatch, name: str) -> Integers:
    """The number in each text of a column."""
    return np.array([int(str(text)[1:]) for text in table[name].to_pylist()], np.int64)


def auroc(engine: Engine, name: str) -> float:
    members, group = GROUPS[name]
    table = flights(NEW_ROWS, 1)
    order = np.random.default_rng(2).permutation(NEW_ROWS)
    at = table.column_names.index(name)
    swapped = table.set_column(at, name, table[name].take(order))
    (column,) = (column for column in engine.schema.columns if column.name == name)
    is_rarer = np.isin(np.array(swapped[name]), [text for text, _ in column.rarer])
    is_odd = is_rarer & ~members.belong(numbers_of(swapped, name), numbers_of(table, group))
    usual, odd = (
        engine.score(rows.combine_chunks().to_batches()[0]).surprise for rows in (table, swapped)
    )
    labels = np.repeat([0, 1], [NEW_ROWS, int(is_odd.sum())])
    return float(roc_auc_score(labels, np.append(usual, odd[is_odd])))


def pairs(engine: Engine, name: str) -> float:
    members, group = GROUPS[name]
    made = engine.generate(3, 0, MADE_ROWS).batch
    whole = made.filter(made[name].is_valid())
    return float(members.belong(numbers_of(whole, name), numbers_of(whole, group)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max-categories", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = Config(max_categories=options.max_categories, find_rules=False)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "artifact"
        start = time.process_time()
        source = FrameSource(flights(ROWS, 0))
        train(source, "flights", out, config, options.seed, None, lambda *_: None)
        seconds = time.process_time() - start
        files = [*out.glob("*.onnx"), out / "manifest.json"]
        size = sum(path.stat().st_size for path in files) / 2**20
        engine = Engine.load(out)
        print(f"fitted in {seconds:.0f} s of one core; {size:.1f} MiB")
        for name in GROUPS:
            print(f"{name:6} AUROC {auroc(engine, name):.3f}  pairs {pairs(engine, name):.3f}")


if __name__ == "__main__":
    main()
