"""The tables and pictures of docs/tutorial/digits.md, made from scikit-learn's handwritten digits.

python docs/examples/digits.py tables              # writes digits.csv and five more tables here
python docs/examples/digits.py errors              # how far the repaired digits are off
python docs/examples/digits.py pictures FOLDER     # draws what Nelbo made of them into FOLDER
"""

import sys
from pathlib import Path

import altair
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from numpy.typing import NDArray
from sklearn.datasets import load_digits

PIXELS = [f"r{row}c{column}" for row in range(8) for column in range(8)]
BRIGHTEST = 16
TRAINING_ROWS = 1_400
SHOWN = 12  # digits in one line of a picture

Digits = NDArray[np.int64]  # (digits, 64), 0 is paper and 16 is ink


def write(name: str, digits: Digits, empty: NDArray[np.bool_] | None = None) -> None:
    columns = {
        pixel: pa.array(digits[:, at], mask=None if empty is None else empty[:, at])
        for at, pixel in enumerate(PIXELS)
    }
    csv.write_csv(pa.table(columns), name)


def read(name: str) -> Digits:
    table = csv.read_csv(name)
    return np.stack([table.column(pixel).to_numpy() for pixel in PIXELS], axis=1)


def tables() -> None:
    """One table to train on, and five to ask about: new digits, as they are and spoilt."""
    digits = load_digits().data.astype(np.int64)
    new = digits[TRAINING_ROWS:]
    random = np.random.default_rng(0)
    spoilt = random.random(new.shape) < 0.1
    noisy = np.where(spoilt, random.integers(0, BRIGHTEST + 1, new.shape), new)

    write("digits.csv", digits[:TRAINING_ROWS])
    write("new.csv", new)
    write("rotated.csv", new[:, ::-1])
    write("noisy.csv", noisy)
    write("gaps.csv", noisy, empty=noisy != new)
    write("one-pixel.csv", one_pixel_changed(new, random))


def one_pixel_changed(digits: Digits, random: np.random.Generator) -> Digits:
    """In each digit, one pixel of the middle from paper to ink or from ink to paper."""
    changed = digits.copy()
    middle = [8 * row + column for row in range(2, 6) for column in range(2, 6)]
    pixels = random.choice(middle, len(digits))
    rows = np.arange(len(digits))
    changed[rows, pixels] = np.where(digits[rows, pixels] > BRIGHTEST // 2, 0, BRIGHTEST)
    return changed


def errors() -> None:
    new, noisy = read("new.csv"), read("noisy.csv")
    spoilt = noisy != new
    tables = {"noisy": noisy, "denoised": read("denoised.csv"), "gaps filled": read("filled.csv")}
    print("pixels off by, of 16   spoilt ones  others")
    for name, digits in tables.items():
        off = np.abs(digits - new)
        print(f"{name:22} {off[spoilt].mean():11.1f} {off[~spoilt].mean():7.1f}")


def pictures(folder: Path) -> None:
    new = read("new.csv")
    likeliest = np.argsort(csv.read_csv("scores.csv").column("nelbo").to_numpy())
    draw(
        folder / "digits-score.png",
        {"least likely": new[likeliest[::-1]], "likeliest": new[likeliest]},
    )
    draw(
        folder / "digits-denoise.png",
        {
            "as written": new,
            "noisy": read("noisy.csv"),
            "denoised": read("denoised.csv"),
            "spoilt pixels emptied and filled": read("filled.csv"),
        },
    )
    draw(
        folder / "digits-generate.png",
        {"real": read("digits.csv"), "generated": read("made.csv"), "": read("made.csv")[SHOWN:]},
    )


def draw(path: Path, lines: dict[str, Digits]) -> None:
    """Each line of the picture is its name and its first digits."""
    charts = [line(name, digits[:SHOWN]) for name, digits in lines.items()]
    altair.vconcat(*charts, spacing=12).configure_view(stroke=None).save(path, ppi=144)


def line(name: str, digits: Digits) -> altair.Chart:
    cells = [
        {"x": 9 * at + column, "y": row, "ink": int(digit[8 * row + column])}
        for at, digit in enumerate(digits)
        for row in range(8)
        for column in range(8)
    ]
    ink = altair.Color("ink:Q", legend=None, scale=altair.Scale(range=["#f3efe6", "#1f2933"]))
    chart: altair.Chart = (
        altair.Chart(altair.InlineData(values=cells), title=altair.Title(name, anchor="start"))
        .mark_rect()
        .encode(altair.X("x:O", axis=None), altair.Y("y:O", axis=None), ink)
        .properties(width=altair.Step(6), height=altair.Step(6))
    )
    return chart


if __name__ == "__main__":
    if sys.argv[1:] == ["tables"]:
        tables()
    elif sys.argv[1:] == ["errors"]:
        errors()
    elif sys.argv[1:2] == ["pictures"] and len(sys.argv) == 3:
        pictures(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
