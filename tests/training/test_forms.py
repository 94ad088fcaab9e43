"""Every formula gives the same in torch and as a graph in ONNX Runtime, on random inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from nelbo.graphs import OPERATORS
from nelbo.schema import Column, Schema
from tests.training.tables import QUICK, made
from training.arrays import picked, reached
from training.columns import UNROLLED
from training.data import Rows, split_rows
from training.decoder import CellsToDraw, Drawable
from training.exemplars import Exemplars
from training.fields import DAY, HOUR
from training.fit import fit_rows
from training.gaussians import log_normal, normals
from training.likelihoods import Likelihoods
from training.nearest import MANY, STEEP
from training.nodes import Nodes, Value
from training.prior import Mixture
from training.vae import VAE, Scored

Array = NDArray[Any]
BATCH = 64
ROWS = 1_200


@dataclass(frozen=True)
class Part:
    """A formula and random inputs for it, each with BATCH rows but the spread. `tolerance` is the
    relative error of float64 results; those of float32 have 1e-4."""

    form: Callable[..., Any]
    inputs: tuple[Array, ...]
    tolerance: float = 1e-9


def in_torch(part: Part) -> list[Array]:
    with torch.no_grad():
        return [np.asarray(x) for x in several(part.form(*map(torch.from_numpy, part.inputs)))]


def in_graph(part: Part, expected: list[Array]) -> list[Array]:
    nodes = Nodes(BATCH)
    values = [nodes.input(f"input_{i}", x.dtype.name, x.shape) for i, x in enumerate(part.inputs)]
    for i, (value, like) in enumerate(zip(several(part.form(*values)), expected, strict=True)):
        nodes.output(f"output_{i}", value, like.shape)
    return run(nodes, part.inputs)


def run(nodes: Nodes, inputs: tuple[Array, ...]) -> list[Array]:
    model = nodes.model()
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} <= set(OPERATORS)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = zip(session.get_inputs(), inputs, strict=True)
    outputs: list[Array] = session.run(None, {declared.name: x for declared, x in given})
    return outputs


def several(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


def _in_parts(scored: Scored[Any]) -> tuple[Any, ...]:
    return scored.terms, scored.kl, *scored.costs


def assert_same(part: Part) -> None:
    expected = in_torch(part)
    for ours, theirs in zip(in_graph(part, expected), expected, strict=True):
        assert ours.dtype == theirs.dtype
        tolerance = 1e-4 if ours.dtype == np.float32 else part.tolerance
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# Functions that need no fitted model

SEED = np.random.default_rng(0)
PLAIN = {
    "log_normal": Part(
        log_normal, tuple(SEED.normal(size=(BATCH, 3)).astype(np.float32) for _ in range(3))
    ),
    "normals": Part(lambda u: normals(u, 5), (SEED.random((BATCH, 6)),)),
    "picked": Part(picked, (SEED.random((BATCH, 1)), np.sort(SEED.random((BATCH, 9)), 1))),
    "reached": Part(
        lambda x: reached(x, torch.tensor([[-1.0, 0.0, 0.5, 2.0], [0.0, 1.0, np.inf, np.inf]])),
        (SEED.normal(size=(BATCH, 2)).astype(np.float32).astype(np.float64),),
    ),
    "asinh": Part(lambda x: x.asinh(), (SEED.normal(size=(BATCH, 2)) * [1.0, 1e100],)),
    "logsumexp": Part(lambda x: x.logsumexp(-1), (1e3 * SEED.normal(size=(BATCH, 7)),)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_function_is_the_same_in_both_forms(name: str) -> None:
    assert_same(PLAIN[name])


# Parts of a fitted model

EVERY_LAW = Schema(
    columns=(
        Column(name="price", kind="continuous"),
        Column(name="at", kind="datetime", step=3_600_000_000),
        Column(
            name="shop",
            kind="categorical",
            categories=("a", "b"),
            rarer=(("c", 90), ("d", 60), ("e", 9)),
            clusters=(0, 1, 0),
        ),
        Column(name="items", kind="integer"),
        Column(name="paid", kind="boolean", categories=("false", "true")),
    )
)


def every_law() -> VAE:
    """A table with atoms, bins and tails, a datetime in three fields, rarer categories and missing
    cells."""
    rng = np.random.default_rng(1)
    price = np.where(rng.random(ROWS) < 0.3, 0.0, rng.lognormal(3, 1, ROWS).round(2))
    at = np.floor(rng.uniform(0, 900 * DAY, ROWS) / HOUR) * HOUR
    items = rng.integers(1, 300, ROWS) * 5.0
    numbers = np.column_stack([price, at, items])
    numbers[rng.random((ROWS, 3)) < 0.1] = np.nan
    codes = np.column_stack([rng.integers(0, 7, ROWS), rng.integers(0, 2, ROWS)])
    return fitted(EVERY_LAW, Rows(numbers, codes))


def many_columns() -> VAE:
    training = made("many columns", ROWS)
    return fitted(training.schema, training.rows)


def fitted(schema: Schema, rows: Rows) -> VAE:
    config = QUICK.model_copy(update={"exemplars": 0.5})
    vae, _ = fit_rows(schema, rows, split_rows(len(rows), 0.1, 0), config, 0, lambda *_: None)
    return vae


@pytest.fixture(scope="module", params=["every law", "many columns"])
def vae(request: pytest.FixtureRequest) -> VAE:
    return every_law() if request.param == "every law" else many_columns()


@dataclass(frozen=True)
class Inputs:
    """A model and random inputs of its parts: encoded rows (`table` and `categories`) with missing
    cells, numbers far outside of the fitted rows and categories that those do not show, any codes x
    int64[BATCH, d], and any z."""

    vae: VAE
    table: Array
    categories: Array
    x: Array
    z: Array

    @classmethod
    def of(cls, vae: VAE, rng: np.random.Generator) -> "Inputs":
        likelihoods = vae.likelihoods
        shape = (BATCH, len(likelihoods.schema.numbers))
        table = rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 9, shape)
        table[rng.random(shape) < 0.2] = np.nan
        categoricals = likelihoods.schema.categoricals
        most = [len(column.categories) + 2 + len(column.clusters) for column in categoricals]
        categories = rng.integers(0, most, (BATCH, len(most)))
        x = rng.integers(0, likelihoods.sizes, (BATCH, len(likelihoods.sizes)))
        z = rng.normal(size=(BATCH, vae.eps.shape[1])).astype(np.float32)
        return cls(vae, table, categories, x, z)

    @property
    def likelihoods(self) -> Likelihoods:
        return self.vae.likelihoods

    @property
    def prior(self) -> Mixture:
        assert isinstance(self.vae.prior, Mixture)
        return self.vae.prior

    @property
    def exemplars(self) -> Exemplars:
        assert self.vae.exemplars is not None
        return self.vae.exemplars

    @property
    def fields(self) -> Array:
        split = self.likelihoods.numbers.fields.split(torch.from_numpy(self.table))
        return np.asarray(split)

    @property
    def number_codes(self) -> Array:
        return self.x[:, self.likelihoods.number_at]

    @property
    def category_codes(self) -> Array:
        return self.x[:, self.likelihoods.category_at]

    def uniform(self, columns: int) -> Array:
        return np.random.default_rng(3).random((BATCH, columns))

    def switches(self, columns: int) -> Array:
        return self.uniform(columns) < 0.5

    @property
    def u_z(self) -> Array:
        return self.uniform(1 + 2 * self.z.shape[1])

    @property
    def u_numbers(self) -> Array:
        return self.uniform(len(self.likelihoods.number_at))

    @property
    def u_rarer(self) -> Array:
        return self.uniform(len(self.likelihoods.category_at))


PARTS: dict[str, Callable[[Inputs], Part]] = {
    "fields split": lambda of: Part(of.likelihoods.numbers.fields.split, (of.table,)),
    "fields joined": lambda of: Part(
        of.likelihoods.numbers.fields.joined,
        (np.nan_to_num(of.fields), of.switches(of.fields.shape[1])),
    ),
    "numbers encoded": lambda of: Part(of.likelihoods.numbers.encode, (of.table,)),
    "numbers drawn": lambda of: Part(of.likelihoods.numbers.draw, (of.number_codes, of.u_numbers)),
    "categories drawn": lambda of: Part(
        of.likelihoods.categories.draw, (of.category_codes, of.u_rarer)
    ),
    "categories encoded": lambda of: Part(of.likelihoods.categories.encode, (of.categories,)),
    "shares of clusters": lambda of: Part(of.likelihoods.categories.log_shares, (of.categories,)),
    "values of categories": lambda of: Part(
        of.likelihoods.of_categories, (of.categories.astype(np.float64),)
    ),
    "rows encoded": lambda of: Part(of.likelihoods.encode, (of.table, of.categories)),
    "rows drawn": lambda of: Part(of.likelihoods.draw, (of.x, of.u_numbers, of.u_rarer)),
    "terms by column": lambda of: Part(of.likelihoods.by_column, (of.x.astype(np.float64),)),
    "cells of fields": lambda of: Part(
        of.likelihoods.of_fields, (of.switches(len(of.likelihoods.fitted)),)
    ),
    "fixed masses": lambda of: Part(
        of.likelihoods.masses.with_fixed, (-of.x.astype(np.float32), of.x)
    ),
    "encoder": lambda of: Part(of.vae.encoder, (of.x,)),
    "decoder's start": lambda of: Part(of.vae.decoder.start, (of.z,)),
    "score of codes": lambda of: Part(
        of.vae.score, (of.x, of.x.astype(np.float64)), tolerance=1e-4
    ),
    "prior's density": lambda of: Part(of.prior.log_prob, (of.z,)),
    "prior drawn": lambda of: Part(of.prior.draw, (of.u_z,)),
    "drawn between a row and the prior": lambda of: Part(
        of.prior.draw_between, (of.z, -np.abs(of.z), of.u_z, np.array([0.3]))
    ),
    "exemplars warped": lambda of: Part(of.exemplars.warped, (of.fields,)),
    "exemplars' score": lambda of: Part(of.exemplars.score, (of.fields, of.category_codes)),
    "score of rows": lambda of: Part(
        lambda *rows: _in_parts(of.vae.score_rows(*rows)), (of.table, of.categories), tolerance=1e-4
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_the_model_is_the_same_in_both_forms(name: str, vae: VAE) -> None:
    assert_same(PARTS[name](Inputs.of(vae, np.random.default_rng(2))))


def test_decoders_are_met_unrolled_and_as_a_scan(vae: VAE) -> None:
    """Otherwise the tests here prove less than they say."""
    is_scan = len(vae.likelihoods.columns) > UNROLLED
    assert is_scan == (vae.likelihoods.schema is not EVERY_LAW)


@pytest.mark.parametrize("is_steep", [False, True])
@pytest.mark.parametrize("rows", [300, 2_000])
def test_the_same_exemplars_are_nearest_in_both_forms(rows: int, is_steep: bool) -> None:
    """Few and many of them, with kernels that float32 tells apart and with steep ones."""
    rng = np.random.default_rng(3)
    schema = Schema(columns=(*EVERY_LAW.columns[:1], *EVERY_LAW.columns[2:4]))
    numbers = np.column_stack([rng.normal(size=rows), rng.integers(0, 50, rows)])
    codes = rng.integers(0, 3, (rows, 1))
    likelihoods = Likelihoods.fit(schema, numbers, codes)
    exemplars = Exemplars(likelihoods, torch.from_numpy(numbers), torch.from_numpy(codes))
    kernels = exemplars.kernels
    kernels.bandwidth = kernels.bandwidth / 100 if is_steep else kernels.bandwidth.clamp(min=0.2)
    assert (kernels.steepest > STEEP) == is_steep
    assert (rows > MANY) == (rows == 2_000)
    y = rng.normal(size=(BATCH, 2))
    assert_same(Part(lambda y, codes: kernels.nearest(y, codes, 5), (y, codes[:BATCH])))


def test_codes_are_drawn_as_torch_s_probabilities_say(vae: VAE) -> None:
    """One column after another, each by its uniform number; codes to keep stay."""
    rng = np.random.default_rng(4)
    masses = vae.likelihoods.masses
    inputs = Inputs.of(vae, rng)
    x = inputs.x
    z = inputs.z
    keep = rng.random(x.shape) < 0.2
    u = rng.random(x.shape)
    nodes = Nodes(BATCH)
    latent = nodes.input("z", "float32", z.shape)
    cells = CellsToDraw(
        x=nodes.input("x", "int64", x.shape),
        keep=nodes.input("keep", "bool", x.shape),
        u=nodes.input("u", "float64", x.shape),
        sharpness=nodes.constant(np.float32(1)),
    )
    drawn = vae.decoder.draw(latent, cells, Drawable(masses.drawn), BATCH)
    nodes.output("codes", drawn, x.shape)
    (codes,) = run(nodes, (z, x, keep, u))

    expected = torch.from_numpy(np.where(keep, x, 0))
    for column in range(x.shape[1]):
        with torch.no_grad():
            logits = vae.decoder(torch.from_numpy(z), expected, torch.from_numpy(keep))[column]
        p = (logits + masses.drawn.split(masses.sizes)[column]).softmax(-1)
        own = picked(torch.from_numpy(u[:, [column]]).float(), p.cumsum(1)[:, :-1])
        expected[:, column] = torch.where(
            torch.from_numpy(keep[:, column]), expected[:, column], own
        )
    assert (codes == expected.numpy()).all(1).mean() > 0.95, (
        "rounding may move one code to the next"
    )
    np.testing.assert_array_equal(codes[keep], x[keep])


def test_a_number_beside_a_value_gets_its_type_and_equal_constants_are_stored_once() -> None:
    nodes = Nodes(2)
    x = nodes.input("x", "float32", [2, 2])
    total = 2 * x + x * 2.0 - torch.tensor([2.0, 2.0]) * x / np.array([2.0, 2.0], np.float32)
    nodes.output("total", total, [2, 2])
    assert len(nodes.initializers) == 2
    np.testing.assert_array_equal(run(nodes, (np.ones((2, 2), np.float32),))[0], np.full((2, 2), 3))
    assert isinstance(total, Value)
