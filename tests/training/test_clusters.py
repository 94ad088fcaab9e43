"""Rarer categories that go with the same values share a cluster, so that the model sees what each
goes with."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from nelbo.engine import Engine
from nelbo.schema import Column, Schema
from tests.training.tables import QUICK
from training.categories import Categories, fit_category
from training.clusters import with_clusters
from training.config import Config
from training.data import FrameSource, Rows, read, split_rows
from training.fit import fit_rows
from training.pipeline import train
from training.vae import score

ROWS, PLANES, CARRIERS = 6_000, 400, 6
RNG = np.random.default_rng(0)
CARRIER_OF = RNG.integers(0, CARRIERS, PLANES)
FREQUENT = 30
CONFIG = QUICK.model_copy(
    update={
        "max_categories": FREQUENT,
        "min_steps": 600,
        "max_steps": 600,
        "find_rules": False,
        "exemplars": 0.0,
    }
)


def flights(seed: int) -> pa.Table:
    """Nearly all flights of a plane are for its carrier, the others for any. The carrier `small`
    has one row in fifty, each plane of it in at most four rows."""
    rng = np.random.default_rng(seed)
    plane = rng.integers(0, PLANES, ROWS)
    carrier = np.where(rng.random(ROWS) < 0.97, CARRIER_OF[plane], rng.integers(0, CARRIERS, ROWS))
    delay = np.round(rng.normal(3 * carrier, 2), 1)
    planes = [f"N{each:03}" for each in plane]
    carriers = [f"carrier {each}" for each in carrier]
    for row in range(0, ROWS, 50):
        planes[row] = f"S{row // 200:03}"
        carriers[row] = "small"
    return pa.table({"plane": planes, "carrier": carriers, "delay": pa.array(delay)})


TABLE = flights(1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("flights") / "artifact"
    run = train(FrameSource(TABLE), "flights", folder, CONFIG, 0, None, lambda *_: None)
    assert not [notice for notice in run.notices if "off" in notice], "torch draws the same"
    return Engine.load(folder)


def batch_of(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]


def rarer_of(engine: Engine) -> Column:
    (plane,) = (column for column in engine.schema.columns if column.name == "plane")
    return plane


def test_planes_of_a_carrier_share_clusters_and_those_are_few(engine: Engine) -> None:
    plane = rarer_of(engine)
    carriers = np.array([CARRIER_OF[int(name[1:])] for name, _ in plane.rarer])
    pairs = np.zeros((max(plane.clusters) + 1, CARRIERS))
    np.add.at(pairs, (np.array(plane.clusters), carriers), 1)
    assert len(pairs) <= np.sqrt(len(plane.rarer))
    assert pairs.max(1).sum() / pairs.sum() > 0.95


def test_a_rarer_category_in_a_row_of_another_carrier_is_surprising(engine: Engine) -> None:
    table = flights(2)
    planes = np.array(table["plane"].to_pylist())
    swapped = planes[np.random.default_rng(3).permutation(ROWS)]
    rarer = {name for name, _ in rarer_of(engine).rarer}
    carriers = table["carrier"].to_pylist()
    is_wrong = np.array(
        [
            name in rarer and f"carrier {CARRIER_OF[int(name[1:])]}" != carrier
            for name, carrier in zip(swapped, carriers, strict=True)
        ]
    )
    other = table.set_column(0, "plane", pa.array(swapped))
    usual = engine.score(batch_of(table)).surprise
    wrong = engine.score(batch_of(other)).surprise[is_wrong]
    labels = np.repeat([0, 1], [len(usual), len(wrong)])
    assert roc_auc_score(labels, np.append(usual, wrong)) > 0.9, "0.5 with one code for all of them"


def test_a_carrier_whose_planes_are_too_rare_is_made_beside_no_plane(engine: Engine) -> None:
    made = engine.generate(0, 0, 20_000).batch.to_pandas()
    small = made.carrier == "small"
    assert 0.01 < small.mean() < 0.03
    assert made.plane[small].isna().all()
    assert made.plane[~small].notna().all()
    assert not made.plane.dropna().str.startswith("S").any()


def test_an_explained_plane_of_the_right_cluster_is_expected(engine: Engine) -> None:
    names = set(rarer_of(engine).categories)
    expected = engine.explain(batch_of(TABLE.slice(0, 40)), "plane").batch["expected"].to_pylist()
    assert set(expected) - names, "a rarer plane is expected where its cluster is"


def test_columns_that_say_nothing_make_one_cluster() -> None:
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "name": [f"n{each}" for each in rng.integers(0, 90, 3_000)],
            "x": pa.array(rng.normal(size=3_000)),
        }
    )
    training = read(FrameSource(table), Config(max_categories=10), 0)
    assert set(training.schema.columns[0].clusters) == {0}


def test_clusters_that_a_schema_has_stay() -> None:
    column = Column(
        name="x",
        kind="categorical",
        categories=("a",),
        rarer=(("b", 9), ("c", 8)),
        clusters=(1, 0),
    )
    schema = Schema(columns=(column,))
    codes = np.array([[0], [3], [4]])
    assert with_clusters(schema, np.empty((3, 0)), codes) == schema


def laws(codes: NDArray[np.int64], column: Column) -> Categories:
    return Categories([fit_category(codes, column, 1)])


def test_shares_of_each_code_sum_to_one() -> None:
    rarer = tuple((f"r{at}", 20 - at) for at in range(9))
    column = Column(
        name="x",
        kind="categorical",
        categories=("a", "b"),
        rarer=rarer,
        clusters=(0, 1, 2, 0, 1, 2, 0, 1, 2),
    )
    of_column = laws(np.arange(13), column)
    every = torch.arange(13)[:, None]
    shares = torch.zeros(7).double()
    shares.index_add_(0, of_column.encode(every)[:, 0], of_column.log_shares(every)[:, 0].exp())
    assert shares.tolist() == pytest.approx([1] * 7)


def test_each_column_draws_members_of_its_own_clusters() -> None:
    """Their rows are in one list, one column after another."""
    few = Column(
        name="x",
        kind="categorical",
        categories=("a",),
        rarer=(("b", 30), ("c", 10)),
        clusters=(1, 0),
    )
    none = Column(name="y", kind="categorical", categories=("a", "b"))
    of_columns = Categories(
        [
            fit_category(np.arange(len(column.categories) + 2), column, 1)
            for column in (few, none, few, none)
        ]
    )
    u = torch.linspace(0, 1 - 1e-9, 401).double()[:, None].expand(-1, 4)
    for code, expected in {0: {0}, 1: {4}, 2: {3}, 3: {3, 4}, 4: {2}}.items():
        codes = torch.tensor([[code, code % 4, code, 2]]).expand(401, -1)
        drawn = of_columns.draw(codes, u)
        assert torch.equal(drawn[:, 0], drawn[:, 2])
        assert set(drawn[:, 0].tolist()) == expected
        assert torch.equal(drawn[:, 1::2], codes[:, 1::2])
    assert float((drawn_of_other(of_columns, u) == 3).double().mean()) == pytest.approx(
        0.75, abs=0.01
    )


def drawn_of_other(categories: Categories, u: torch.Tensor) -> torch.Tensor:
    """What `other` of the first and the third column is drawn as."""
    return categories.draw(torch.tensor([[3, 2, 3, 2]]).expand(len(u), -1), u)[:, ::2]


@pytest.mark.parametrize("exemplars", [0.0, 0.5, 1.0])
def test_the_nelbo_counts_the_share_of_a_member_and_costs_do_not(exemplars: float) -> None:
    column = Column(
        name="x",
        kind="categorical",
        categories=("a",),
        rarer=(("b", 60), ("c", 20)),
        clusters=(0, 0),
    )
    schema = Schema(columns=(column, Column(name="y", kind="continuous")))
    rng = np.random.default_rng(0)
    rows = Rows(rng.normal(size=(200, 1)), np.repeat([0, 3, 4], [120, 60, 20])[:, None])
    config = Config(min_steps=20, max_steps=20, exemplars=exemplars)
    vae, _ = fit_rows(schema, rows, split_rows(200, 0.1, 0), config, 0, lambda *_: None)
    one, other = (score(vae, replace(rows, codes=np.full((200, 1), code))) for code in (3, 4))
    difference = (other.nelbo - one.nelbo).numpy()
    assert difference == pytest.approx(np.full(200, np.log(3)))
    for costs, of_other in zip(one.costs, other.costs, strict=True):
        assert torch.equal(costs, of_other)
