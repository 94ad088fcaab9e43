"""NelboSynthesizer: made rows by the names of SDV's synthesizers, so that its users change one
import. SDMetrics' reports take its rows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from nelbo.errors import InvalidInput, NotReady
from nelbo.files import table_of
from nelbo.frames import to_arrow
from nelbo.model import Data, Frame, TableModel
from nelbo.schema import Kind, Schema
from nelbo.schema_inference import infer

from .in_process import fit_model

KINDS: Mapping[str, tuple[Kind, ...]] = {
    "numerical": ("continuous", "integer"),
    "categorical": ("categorical", "boolean"),
    "boolean": ("boolean",),
    "datetime": ("datetime",),
    "unknown": (),
}
"""The kinds of columns that a semantic type of SDV allows, the usual one first; none allows all.
All other semantic types (id, email, name ...) are identifiers."""


class NelboSynthesizer:
    """Makes rows like those of a table.

    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> real = pd.DataFrame({"x": rng.normal(size=500), "kind": rng.choice(["a", "b"], 500)})
    >>> synthesizer = NelboSynthesizer(quick=True, contaminated=0).fit(real)
    >>> synthesizer.sample(num_rows=3).dtypes.equals(real.dtypes)
    True
    """

    def __init__(
        self, metadata: Any = None, *, quick: bool = False, seed: int = 0, **settings: Any
    ) -> None:
        """metadata: of SDV for a single table, or a dictionary with its `columns`, each with an
        `sdtype`. Default: the kinds of the columns are inferred.

        quick, seed, settings: as for `nelbo.fit`.
        """
        self.metadata = metadata
        self.quick = quick
        self.seed = seed
        self.settings = settings
        self._model: TableModel | None = None

    @property
    def model(self) -> TableModel:
        """The fitted model, which can be asked more. Raises NotReady before `fit`."""
        if self._model is None:
            raise NotReady("the synthesizer is not fitted; call fit(data) first")
        return self._model

    def fit(self, data: Data) -> Self:
        """Train on a data frame. Raises InvalidInput where data or metadata cannot be used."""
        schema = None if self.metadata is None else _schema(data, self.metadata)
        self._model = fit_model(
            data,
            name="synthesizer",
            quick=self.quick,
            seed=self.seed,
            schema=schema,
            **self.settings,
        )
        return self

    def sample(self, num_rows: int, *, seed: int | None = None) -> Frame:
        """New rows, in the columns, types and categories of the data that it was fitted to.

        seed: the same seed gives the same rows. None takes a new seed for each call.
        """
        return self.model.generate(num_rows, seed=seed)

    def save(self, filepath: str | Path) -> None:
        """Write the model to a folder that is new or empty. `nelbo.load` reads it too."""
        self.model.save(filepath)

    @classmethod
    def load(cls, filepath: str | Path) -> Self:
        """The synthesizer that was saved in a folder. Raises NotFound or InvalidArtifact."""
        synthesizer = cls()
        synthesizer._model = TableModel.read(Path(filepath))
        return synthesizer


def _schema(data: Data, metadata: Any) -> Schema:
    """The inferred schema, with other kinds where the metadata asks for them."""
    types = dict(_semantic_types(metadata))
    with table_of(to_arrow(data)) as table:
        absent = sorted(types.keys() - set(table.names))
        if absent:
            raise InvalidInput(
                f"the metadata names columns that the data lacks: {', '.join(absent[:10])}"
            )
        inferred = infer(table.batches())
        overrides: dict[str, Kind] = {}
        for column in inferred.columns:
            kinds = KINDS.get(types.get(column.name, "unknown"), ("identifier",))
            if kinds and column.kind not in kinds:
                overrides[column.name] = kinds[0]
        return infer(table.batches(), overrides)


def _semantic_types(metadata: Any) -> Iterator[tuple[str, str]]:
    """The name and the semantic type of each column."""
    content = metadata if isinstance(metadata, Mapping) else metadata.to_dict()
    tables = content.get("tables", {"": content})
    if len(tables) != 1:
        raise InvalidInput(f"the metadata is of {len(tables)} tables; give that of a single table")
    (table,) = tables.values()
    for name, column in table.get("columns", {}).items():
        yield name, column.get("sdtype", "unknown")
