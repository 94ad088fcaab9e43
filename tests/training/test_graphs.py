"""Every table's graphs answer as torch does, hold no randomness, nothing of where they were made,
and stay small."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from nelbo.encoding import arrow_schema, decode, encode
from nelbo.engine import Engine
from nelbo.errors import InvalidArtifact
from nelbo.schema import Column, Schema
from tests.training.tables import KINDS, QUICK, made
from training.columns import UNROLLED
from training.config import Config
from training.data import Rows, Training, split_rows
from training.export import check_scores, export, export_model
from training.fit import fit_rows
from training.nearest import LAYERS, MANY
from training.vae import VAE, score

Exported = tuple[Training, VAE, Engine]


def silent(step: int, steps: int, nelbo: float) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export(request.param, tmp_path_factory.mktemp("artifact"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return _export("mixed", tmp_path_factory.mktemp("mixed"))


def _export(name: str, folder: Path, rows: int = 600) -> Exported:
    training = made(name, rows)
    vae, _ = fit_rows(training.schema, training.rows, training.split, QUICK, 0, silent)
    export(folder, vae, name, training, QUICK, 0)
    return training, vae, Engine.load(folder)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def test_the_engine_scores_as_torch_does(exported: Exported) -> None:
    training, vae, engine = exported
    scored = score(vae, training.rows)
    costs = engine.costs(training.rows.numbers, training.rows.codes)
    agree = np.isclose(costs.terms, scored.terms.numpy(), rtol=1e-4, atol=1e-4).all(1)
    assert agree.all() or (vae.share and agree.mean() > 0.97), (
        "only rows between two exemplars may differ"
    )
    np.testing.assert_allclose(costs.nelbo, scored.nelbo.numpy(), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(costs.kl, scored.kl.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(costs.nelbo, costs.terms.sum(1) + costs.kl, rtol=1e-12)
    assert costs.members is not None
    for of_member, of_torch in zip(costs.members.swapaxes(0, 1), scored.costs, strict=True):
        np.testing.assert_allclose(of_member[agree], of_torch.numpy()[agree], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", [1, 3, 7, 100, 255])
def test_a_row_is_the_same_to_the_last_bit_wherever_in_a_batch_it_is(
    exported: Exported, place: int
) -> None:
    _, _, engine = exported
    rows = engine.generate(seed=5, first_row=0, rows=520).batch
    whole, part = engine.score(rows), engine.score(rows.slice(place), first_row=place)
    for name in ("nelbo", "surprise", "p_value", "kl", "terms", "surprises"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[place:])
    assert engine.generate(5, place, 520 - place).batch.equals(rows.slice(place))
    filled = engine.reconstruct(rows, 0, seed=1, denoise=True).batch
    assert engine.reconstruct(rows.slice(place), place, 1, denoise=True).batch.equals(
        filled.slice(place)
    )


def test_among_many_exemplars_the_engine_finds_the_nearest(tmp_path: Path) -> None:
    training, vae, engine = _export("numbers only", tmp_path, rows=2_503)
    assert vae.exemplars is not None
    assert len(vae.exemplars.y) > MANY
    assert len(vae.exemplars.y) % LAYERS
    nelbo = engine.costs(training.rows.numbers, training.rows.codes).nelbo
    expected = score(vae, training.rows).nelbo.numpy()
    assert np.isclose(nelbo, expected, rtol=1e-4, atol=1e-4).mean() > 0.97


def test_no_graph_holds_a_random_node_or_a_custom_one(exported: Exported) -> None:
    for name in exported[2].manifest.graphs:
        model = onnx.load(exported[2].artifact.graph(name))
        found = {(node.domain, node.op_type) for node in _nodes(model.graph)}
        assert not {
            op for _, op in found if "Random" in op or op in ("Bernoulli", "Multinomial", "Dropout")
        }
        assert {domain for domain, _ in found} == {""}


def test_no_graph_says_where_it_was_made(exported: Exported) -> None:
    for name in exported[2].manifest.graphs:
        model = onnx.load(exported[2].artifact.graph(name))
        for constant in model.graph.initializer:
            constant.raw_data = b""  # among so many bytes any three stand together somewhere
        content = model.SerializeToString()
        assert b".py" not in content
        assert b"/" + Path.cwd().parts[1].encode() + b"/" not in content


def test_generated_cells_are_of_the_kinds_that_the_schema_names(exported: Exported) -> None:
    training, vae, engine = exported
    batch = engine.generate(3, 0, 500).batch
    for column in training.schema.categoricals:
        assert set(map(str, batch[column.name].to_pylist())) <= {
            "None",
            *column.categories,
            "True",
            "False",
        }
    likelihoods, again = vae.likelihoods, encode(batch, training.schema)
    codes, _ = likelihoods.encode(torch.from_numpy(again.numbers), torch.from_numpy(again.codes))
    assert not (codes == likelihoods.masses.other)[:, likelihoods.number_at].any(), (
        "no number beyond those of the table"
    )
    assert batch.schema == arrow_schema(training.schema)


def test_at_its_ends_the_spread_gives_the_posterior_s_z_and_the_prior_s(exported: Exported) -> None:
    training, _, engine = exported
    batch, draws = engine.manifest.batch, engine.manifest.draws["z"]
    rows, u = training.rows.take(np.arange(batch)), np.random.default_rng(0).random((batch, draws))
    every, drawn = np.ones((batch, len(engine.manifest.order)), dtype=np.bool_), np.array([False])
    near, _, *q = engine.run("posterior", rows.numbers, rows.codes, every, u, drawn)
    (far,) = engine.run("prior", u)
    for spread, wanted in ((0.0, near), (1e-9, near), (1 - 1e-9, far), (1.0, far)):
        (z,) = engine.run("spread", *q, u, np.array([spread]))
        np.testing.assert_allclose(z, wanted, rtol=1e-5, atol=1e-5)


def test_copies_find_back_to_their_rows_the_less_the_farther_they_spread(tmp_path: Path) -> None:
    """600 rows of two hidden causes, trained so that z tells of them: `auxiliary` weighs what z
    alone must explain."""
    n, rng = 600, np.random.default_rng(0)
    numbers = np.round(
        rng.uniform(-1, 1, (n, 2)) @ rng.normal(size=(2, 12)) + 0.02 * rng.normal(size=(n, 12)), 4
    )
    rows = Rows(numbers, np.empty((n, 0), dtype=np.int64))
    schema = Schema(columns=tuple(Column(name=f"column {i}", kind="continuous") for i in range(12)))
    config = Config(min_steps=400, max_steps=400, auxiliary=2, exemplars=0)
    vae, _ = fit_rows(schema, rows, split_rows(n, 0.1, 0), config, 0, silent)
    export_model(tmp_path, vae, "causes", schema, config, 0, rows)
    engine, given = Engine.load(tmp_path), decode(rows.numbers, rows.codes, schema)
    known, found = NearestNeighbors(n_neighbors=1).fit(numbers), dict[float, float]()
    for spread in (0.0, 0.5, 0.9, 1.0):
        copies = engine.augment(given, 0, 5, seed=0, spread=spread).batch
        away, nearest = known.kneighbors(np.column_stack([copies[name] for name in schema.names]))
        found[spread] = (
            n * (nearest[:, 0] == copies["row"].to_numpy()).mean()
        )  # a multiple of chance
        assert (away == 0).mean() <= 0.01
    assert found[0.0] >= 20
    assert found[0.0] > found[0.5] > found[0.9] > 5 > found[1.0]


@pytest.mark.parametrize("mode", [False, True])
def test_observed_cells_survive_reconstruction_and_no_cell_stays_empty(
    exported: Exported, mode: bool
) -> None:
    _, _, engine = exported
    given = engine.generate(4, 0, 100).batch
    assert any(given[name].null_count for name in given.schema.names), (
        "missing is something that a cell can be"
    )
    made_rows = engine.reconstruct(given, 0, seed=1, mode=mode).batch
    for name in given.schema.names:
        for before, after in zip(given[name].to_pylist(), made_rows[name].to_pylist(), strict=True):
            assert after is not None
            assert before is None or before == after


def test_graphs_of_wide_tables_stay_small_enough_to_load(tmp_path: Path) -> None:
    _, _, wide = _export("many columns", tmp_path)
    assert len(wide.manifest.order) > UNROLLED
    assert wide.manifest.batch == 256
    for name in wide.manifest.graphs:
        assert sum(1 for _ in _nodes(onnx.load(wide.artifact.graph(name)).graph)) < 400


def test_the_same_weights_give_the_same_bytes(mixed: Exported, tmp_path: Path) -> None:
    training, vae, engine = mixed
    again = export(tmp_path, vae, "mixed", training, QUICK, 0)
    assert again.manifest.graphs == engine.manifest.graphs


def test_export_refuses_graphs_that_answer_otherwise_than_torch(mixed: Exported) -> None:
    training, vae, engine = mixed
    kept = vae.decoder.out_bias.clone()
    vae.decoder.out_bias.add_(torch.randn_like(kept))
    try:
        with pytest.raises(InvalidArtifact, match="differ"):
            check_scores(engine, vae, training.rows)
    finally:
        vae.decoder.out_bias.copy_(kept)


def test_drawn_numbers_have_no_more_digits_than_the_table(tmp_path: Path) -> None:
    training = made("numbers only")
    rows = Rows(np.round(training.rows.numbers, 2), training.rows.codes)
    vae, _ = fit_rows(training.schema, rows, training.split, QUICK, 0, silent)
    export_model(tmp_path, vae, "prices", training.schema, QUICK, 0, rows)
    drawn = np.array(Engine.load(tmp_path).generate(0, 0, 500).batch["continuous 0"].drop_null())
    np.testing.assert_array_equal(drawn, np.round(drawn, 2))


def test_drawn_numbers_with_many_digits_are_values_of_their_own_code(tmp_path: Path) -> None:
    """Times 10^6 these exceed what a float holds beside a fraction, so that rounding down to six
    digits would lose the last."""
    rng, n = np.random.default_rng(0), 4_000
    atoms = np.round(rng.uniform(1e6, 1e8, 150), 6)
    numbers = np.column_stack(
        [rng.choice(atoms, n), np.round(5e6 + 900 * rng.normal(size=n), 6), -rng.choice(atoms, n)]
    )
    numbers[rng.random(n) < 0.5, 1] = -10_381_740.7002
    schema = Schema(columns=tuple(Column(name=f"x{j}", kind="continuous") for j in range(3)))
    rows = Rows(numbers, np.empty((n, 0), dtype=np.int64))
    vae, _ = fit_rows(schema, rows, split_rows(n, 0.1, 0), QUICK, 0, silent)
    export_model(tmp_path, vae, "digits", schema, QUICK, 0, rows)
    made = Engine.load(tmp_path).generate(0, 0, 500).batch
    assert set(made["x0"].to_pylist()) <= set(atoms)
    assert set(made["x2"].to_pylist()) <= set(-atoms)
    assert -10_381_740.7002 in made["x1"].to_pylist()


def test_drawn_integers_are_as_round_as_the_table_s(tmp_path: Path) -> None:
    training = made("numbers only")
    rows = Rows(np.round(training.rows.numbers * 10) * 250 + 7, training.rows.codes)
    vae, _ = fit_rows(training.schema, rows, training.split, QUICK, 0, silent)
    export_model(tmp_path, vae, "round", training.schema, QUICK, 0, rows)
    drawn = np.array(Engine.load(tmp_path).generate(0, 0, 500).batch["integer 1"].drop_null())
    assert len(np.unique(drawn)) > 50
    assert set(drawn % 250) == {7}


def test_rarer_categories_are_drawn_by_their_shares_and_observed_ones_keep_their_names(
    tmp_path: Path,
) -> None:
    rng, n = np.random.default_rng(0), 2_000
    rarer = (("c", 400), ("d", 200), ("e", 200))
    pair = Column(name="pair", kind="categorical", categories=("p", "q"))
    name = Column(
        name="name", kind="categorical", categories=("a", "b"), rarer=rarer, clusters=(0, 0, 1)
    )
    first = rng.integers(0, 2, n)
    of_rarer = rng.choice([4, 5, 6], n, p=[0.5, 0.25, 0.25])
    codes = np.column_stack([first, np.where(first == 1, of_rarer, rng.integers(0, 2, n))])
    rows, schema = Rows(np.empty((n, 0)), codes), Schema(columns=(pair, name))
    config = Config(min_steps=300, max_steps=300)
    vae, _ = fit_rows(schema, rows, split_rows(n, 0.1, 0), config, 0, silent)
    export_model(tmp_path, vae, "names", schema, config, 0, rows)
    engine = Engine.load(tmp_path)
    made = engine.generate(0, 0, 4_000).batch.to_pandas()
    shares = made[made.pair == "q"].name.value_counts(normalize=True)
    assert shares[["c", "d", "e"]].tolist() == pytest.approx([0.5, 0.25, 0.25], abs=0.05)
    assert not made.isna().any().any()
    given = pa.record_batch({"pair": [None, "q", "p"] * 50, "name": ["d", None, None] * 50})
    filled = engine.reconstruct(given, 0, seed=1).batch.to_pandas()
    assert (filled.name[::3] == "d").all()
    assert (filled.pair[::3] == "q").mean() > 0.8
    assert set(filled.name[1::3]) <= {"a", "b", "c", "d", "e"}
    mode = engine.reconstruct(given, 0, seed=1, mode=True).batch.to_pandas()
    assert set(mode.name[1::3]) == {"c"}
    assert set(mode.name[2::3]) <= {"a", "b"}
    should = engine.explain(given, "name").batch.to_pandas()
    assert set(should.expected[1::3]) <= {"c", "d"}
    assert set(should.expected[2::3]) <= {"a", "b"}


def test_values_one_float_apart_are_drawn_inside_their_own_code(tmp_path: Path) -> None:
    training = made("numbers only")
    near = np.nextafter(training.rows.numbers[:, 0], np.inf)
    numbers = training.rows.numbers.copy()
    numbers[1::2, 0] = np.where(np.isnan(near[::2]), np.nan, near[::2])
    rows = Rows(numbers, training.rows.codes)
    vae, _ = fit_rows(training.schema, rows, training.split, QUICK, 0, silent)
    export_model(tmp_path, vae, "near", training.schema, QUICK, 0, rows)


def test_rows_as_far_as_floats_go_are_scored_as_torch_does(tmp_path: Path) -> None:
    training = made("numbers only")
    rows = Rows(training.rows.numbers.copy(), training.rows.codes)
    rows.numbers[training.split.fitted[:2], 0] = [-1.7e308, 1.7e308]
    vae, _ = fit_rows(training.schema, rows, training.split, QUICK, 0, silent)
    export_model(tmp_path, vae, "far", training.schema, QUICK, 0, rows)
