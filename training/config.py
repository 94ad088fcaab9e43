"""The configuration of a training run: defaults that fit most tables, and run.toml to change
them."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nelbo.errors import InvalidInput, NotFound
from nelbo.schema import MAX_CATEGORIES
from nelbo.utf8 import read_text


class Config(BaseModel):
    """Every field can stand in run.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float, Field(gt=0, description="AdamW's step size at its highest")] = (
        3e-3
    )
    weight_decay: Annotated[float, Field(ge=0, description="AdamW's weight decay")] = 0.1
    epochs: Annotated[int, Field(gt=0, description="passes over the training rows, at most")] = 16
    min_steps: Annotated[
        int, Field(gt=0, description="gradient steps at least; small tables take fewer")
    ] = 1_600
    max_steps: Annotated[
        int, Field(gt=0, description="gradient steps at most, however many the rows")
    ] = 4_000
    slack: Annotated[
        float,
        Field(ge=0, description="nats a column above the best held-out nelbo that stop nothing"),
    ] = 0.02
    patience: Annotated[
        int,
        Field(
            gt=0, description="checks of the held-out rows beyond the slack before training stops"
        ),
    ] = 5
    auxiliary: Annotated[
        float, Field(ge=0, description="weight of the factorised decoder that keeps z informative")
    ] = 0.5
    widest: Annotated[
        int, Field(ge=32, description="hidden units of the decoder at most; few codes take fewer")
    ] = 256
    hidden_rows: Annotated[
        float, Field(ge=0, le=1, description="share of rows that train with random cells hidden")
    ] = 0.25
    exemplars: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="weight of the exemplars in a score; by the columns' kinds if not given",
        ),
    ] = None
    contaminated: Annotated[
        float, Field(ge=0, lt=0.2, description="share of the rows that may be anomalies themselves")
    ] = 0.0
    noise_points: Annotated[
        int, Field(ge=2, le=1_024, multiple_of=2, description="noise points in each row's score")
    ] = 2
    held_out: Annotated[
        float,
        Field(
            gt=0, lt=0.5, description="share of rows for early stopping, and the same to calibrate"
        ),
    ] = 0.1
    peaks_over_threshold: Annotated[
        bool,
        Field(
            description="p-values below 1 / (n + 1), by a generalised Pareto tail of the n"
            " calibration scores if it fits"
        ),
    ] = False
    rare: Annotated[
        int,
        Field(
            ge=1,
            description="a category that fewer rows hold is never generated; numbers that rare"
            " become ranges",
        ),
    ] = 5
    max_categories: Annotated[
        int,
        Field(
            gt=0,
            le=MAX_CATEGORIES,
            description="known categories of a column; rarer ones are `other`",
        ),
    ] = 200
    max_train_rows: Annotated[
        int, Field(gt=0, description="rows kept in memory to train on; more are sampled")
    ] = 1_000_000
    device: Annotated[
        Literal["cpu", "cuda"],
        Field(
            description="where training takes its steps; cuda takes longer in matrices this small"
        ),
    ] = "cpu"
    threads: Annotated[
        int, Field(gt=0, description="threads of torch; more gain nothing in matrices this small")
    ] = 1

    @model_validator(mode="after")
    def _steps_have_room(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(
                f"min_steps ({self.min_steps}) must not be above max_steps ({self.max_steps})"
            )
        return self

    @classmethod
    def quick(cls, contaminated: float = 0.0) -> Self:
        """A draft in less than half of the time: fewer steps, but longer ones."""
        return cls(
            epochs=4,
            min_steps=150,
            max_steps=600,
            learning_rate=6e-3,
            widest=64,
            contaminated=contaminated,
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a TOML file; raises NotFound, or InvalidInput that names the wrong key."""
        try:
            return cls.model_validate(tomllib.loads(read_text(path)))
        except FileNotFoundError:
            raise NotFound(f"no configuration at {path}") from None
        except OSError as problem:
            raise InvalidInput(f"{path} cannot be read: {problem.strerror}") from None
        except tomllib.TOMLDecodeError as problem:
            raise InvalidInput(f"{path} is not TOML: {problem}") from None
        except ValidationError as problem:
            first = problem.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the file"
            raise InvalidInput(
                f"{path}: {key}: {first['msg']}; known keys are {', '.join(cls.model_fields)}"
            ) from None
