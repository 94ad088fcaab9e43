"""The settings of a training run: defaults that suit most tables, and run.toml to change them."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nelbo.errors import InvalidInput, NotFound
from nelbo.schema import MAX_CATEGORIES
from nelbo.utf8 import read_text


class Config(BaseModel):
    """The settings of a training run. Each field is a key of run.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float, Field(gt=0, description="highest learning rate of AdamW")] = (
        3e-3
    )
    weight_decay: Annotated[float, Field(ge=0, description="weight decay of AdamW")] = 0.1
    epochs: Annotated[
        int,
        Field(
            gt=0,
            description="number of passes over the training rows, within min_steps and max_steps",
        ),
    ] = 16
    min_steps: Annotated[
        int, Field(gt=0, description="minimum number of gradient steps; small tables take fewer")
    ] = 1_600
    max_steps: Annotated[
        int, Field(gt=0, description="maximum number of gradient steps; wide tables take fewer")
    ] = 4_000
    slack: Annotated[
        float,
        Field(
            ge=0,
            description="training continues while the held-out nelbo is within this many"
            " nats per column of its best",
        ),
    ] = 0.02
    patience: Annotated[
        int,
        Field(
            gt=0,
            description="number of checks in a row beyond the slack after which training stops",
        ),
    ] = 5
    auxiliary: Annotated[
        float,
        Field(
            ge=0, description="weight of the auxiliary decoder's loss, which keeps z informative"
        ),
    ] = 0.5
    widest: Annotated[
        int,
        Field(
            ge=32,
            description="maximum decoder width;"
            " tables with few codes per column get a narrower decoder",
        ),
    ] = 256
    hidden_rows: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="share of the training rows in which random cells are hidden, so that"
            " the model learns what they are given the others",
        ),
    ] = 0.3
    exemplars: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="weight of the exemplars in a score, from 0 to 1;"
            " if not set, the kinds of the columns decide",
        ),
    ] = None
    contaminated: Annotated[
        float | None,
        Field(
            ge=0,
            lt=0.2,
            description="share of the rows that are anomalies themselves; if not set, training"
            " doubts the rows that only rows like them make look normal",
        ),
    ] = None
    noise_points: Annotated[
        int,
        Field(
            ge=2,
            le=1_024,
            multiple_of=2,
            description="number of noise points (an even number) that each row's score is"
            " the mean over",
        ),
    ] = 2
    held_out: Annotated[
        float,
        Field(
            gt=0,
            lt=0.5,
            description="share of the rows that is held out for early stopping,"
            " and an equal share for calibration",
        ),
    ] = 0.1
    peaks_over_threshold: Annotated[
        bool,
        Field(
            description="estimate p-values below 1 / (n + 1) by a generalised Pareto tail,"
            " if it fits the n calibration scores"
        ),
    ] = False
    rare: Annotated[
        int,
        Field(
            ge=1,
            description="minimum number of rows:"
            " rarer categories are never generated,"
            " and rarer numbers become ranges",
        ),
    ] = 5
    max_categories: Annotated[
        int,
        Field(
            gt=0,
            le=MAX_CATEGORIES,
            description="maximum number of categories per column that are modelled one by one;"
            " rarer ones are modelled in clusters",
        ),
    ] = 200
    find_rules: Annotated[
        bool,
        Field(
            description="find what all rows of the table keep, such as start <= end; made rows keep"
            " it too"
        ),
    ] = True
    rules: Annotated[
        tuple[str, ...],
        Field(
            max_length=100,
            description="rules that made rows keep beside those that are found, such as"
            " 'start <= end', 'model -> seats', 'total = net + tax'",
        ),
    ] = ()
    max_train_rows: Annotated[
        int,
        Field(
            gt=0,
            description="maximum number of rows in memory to train on;"
            " of larger tables a sample is used",
        ),
    ] = 1_000_000
    device: Annotated[
        Literal["cpu", "cuda"],
        Field(
            description="device that computes the training steps;"
            " cuda is slower for matrices this small"
        ),
    ] = "cpu"
    threads: Annotated[
        int,
        Field(
            gt=0,
            description="number of threads of torch;"
            " more than one does not help with matrices this small",
        ),
    ] = 1

    @model_validator(mode="after")
    def _steps_have_room(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(
                f"min_steps ({self.min_steps}) must not be above max_steps ({self.max_steps})"
            )
        return self

    @classmethod
    def quick(cls, contaminated: float | None = None) -> Self:
        """Settings for a draft, which takes less than half the time: fewer but larger steps."""
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
        """The settings in a TOML file.

        Raises NotFound, or InvalidInput, which names the wrong key.
        """
        try:
            return cls.checked(tomllib.loads(read_text(path)), str(path))
        except FileNotFoundError:
            raise NotFound(f"no configuration at {path}") from None
        except OSError as problem:
            raise InvalidInput(f"{path} cannot be read: {problem.strerror}") from None
        except tomllib.TOMLDecodeError as problem:
            raise InvalidInput(f"{path} is not TOML: {problem}") from None

    @classmethod
    def checked(cls, values: Mapping[str, object], name: str) -> Self:
        """The settings with these values. Raises InvalidInput, which names the wrong key.

        name: where the values come from, in a message.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as problem:
            first = problem.errors()[0]
            key = ".".join(map(str, first["loc"])) or "all settings"
            raise InvalidInput(
                f"{name}: {key}: {first['msg']}; known keys are {', '.join(cls.model_fields)}"
            ) from None
