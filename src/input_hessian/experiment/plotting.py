"""What all figures share: the style, the colours, the words, and how a figure is saved."""

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

plt.style.use(Path(__file__).with_name("style.mplstyle"))

NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$"}
DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits": "Digits (8x8)"}
# Paul Tol's "muted" scheme (sronpersonalpages.nl/~pault). To colour-blind readers its nine colours
# are further apart than seaborn's "colorblind" ones.
COLOURS = ["#332288", "#CC6677", "#117733", "#88CCEE", "#882255"]
COLOURS += ["#999933", "#44AA99", "#AA4499", "#DDCC77"]
MARKERS = "osD^vP*X"
LINES = ["-"] * 5 + ["--"] * 5
# These look the same in every figure and run, whichever of them a figure shows.
REGULARIZERS = ["gradient", "hessian", "hessian-paper", "taylor", "cure", "jacobian"]
REGULARIZERS += ["adversarial-linf", "adversarial-l2"]


def regularizer_styles(names: Iterable[str]) -> dict[str, dict[str, object]]:
    """Return colour, marker and line style per regularizer; plain training is black.

    The names of :data:`REGULARIZERS` have a style of their own; others get the next ones in their
    order of appearance, so a figure has to pass the names of the whole run.
    """
    names = list(dict.fromkeys(names))
    others = [name for name in dict.fromkeys([*REGULARIZERS, *names]) if name != "none"]
    styles = {  # the three repeat out of step
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "ls": LINES[i % len(LINES)],
        }
        for i, name in enumerate(others)
        if name in names
    }
    return {"none": {"color": "black", "marker": "x"}, **styles}


def lam_colours(lams: Iterable[float]) -> dict[float, tuple]:
    """Return one colour per weight of one regularizer, light to dark as it grows."""
    lams = sorted(set(lams))
    return dict(zip(lams, sns.color_palette("flare", len(lams)), strict=True))


def weighted_name(name: str, lam: float) -> str:
    """Return a regularizer's name with its weight; plain training has none."""
    return name if name == "none" else f"{name}, λ = {lam:g}"


def panel_titles(table: pd.DataFrame) -> dict[str, str]:
    """Return the title of each regularizer's panel; of a single weight, it states that weight.

    Args:
        table: rows with ``regularizer`` and ``lam``.
    """
    lams = table.groupby("regularizer", sort=False)["lam"].unique()
    return {
        name: name if name == "none" or len(values) > 1 else f"{name}\nλ = {values[0]:g}"
        for name, values in lams.items()
    }


def lam_legend(figure: Figure, lams: Iterable[float], others: Sequence[Line2D] = ()) -> None:
    """Draw one legend of weights and others for all panels: inside them, it would hide data."""
    colours = lam_colours(lams)
    handles = [Line2D([], [], color=c, label=f"λ = {lam:g}") for lam, c in colours.items()]
    handles += others
    # three columns where there are sources to name: four would be wider than the figure
    columns = 4 if max(len(handle.get_label()) for handle in handles) < 20 else 3
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)))


def panels(
    names: Sequence[str], labels: Sequence[str], size: tuple[float, float], *, sharex: bool
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure, and the axes of each row, one per name.

    After four columns the rows go on below, so that the figure stays legible on a page.

    Args:
        names: titles of the columns.
        labels: vertical axis of each row; the axes of a row share their limits.
        size: of one panel, in inches.
        sharex: let all rows share the horizontal axis.
    """
    blocks = math.ceil(len(names) / 4)
    columns = math.ceil(len(names) / blocks)
    figure, grid = plt.subplots(
        blocks * len(labels),
        columns,
        figsize=(size[0] * columns + 0.8, size[1] * blocks * len(labels)),
        squeeze=False,
    )
    rows = [grid[i :: len(labels)].flatten() for i in range(len(labels))]
    for row, label in zip(rows, labels, strict=True):
        for k, axes in enumerate(row):
            axes.set_visible(k < len(names))
            if k:
                axes.sharey(row[0])
            if (first := rows[0][0] if sharex else row[0]) is not axes:
                axes.sharex(first)
            axes.tick_params(labelleft=k % columns == 0, labelbottom=row is rows[-1] or not sharex)
            axes.set_ylabel(label if k % columns == 0 else None)
    for axes, name in zip(rows[0], names, strict=False):
        axes.set_title(name)
    return figure, [row[: len(names)] for row in rows]


def nothing_to_draw(paths: Iterable[Path]) -> None:
    """Write a figure that says that no cell finished."""
    figure, axes = plt.subplots(figsize=(4, 1))
    axes.text(0.5, 0.5, "every cell diverged: see tables/cells.csv", ha="center", va="center")
    axes.axis("off")
    save(figure, paths)


def save(figure: Figure, paths: Iterable[Path]) -> None:
    """Write the figure in every format asked for, without a date: equal data, equal bytes.

    A PNG gets a palette of 256 colours: a third of the size, and no visible difference.
    """
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(path.suffix[1:])
        if path.suffix == ".png":
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            image = Image.open(buffer).convert("RGB")
            image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        else:
            figure.savefig(path, metadata=metadata)
    plt.close(figure)
