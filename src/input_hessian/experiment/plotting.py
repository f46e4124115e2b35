"""What all figures share: the style, the colours, the words, and how a figure is saved."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from input_hessian.experiment.cells import imported
from input_hessian.experiment.table_text import dataset_title

if TYPE_CHECKING:
    from seaborn import FacetGrid
    from torch import Tensor

matplotlib.rcdefaults()  # a user's matplotlibrc changes no figure
# Seaborn lays its grids out before they have their titles; `save` does it again.
warnings.filterwarnings("ignore", "Tight layout not applied")
plt.style.use(Path(__file__).with_name("style.mplstyle"))

NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$"}
# Paul Tol's "muted" scheme (sronpersonalpages.nl/~pault). To colour-blind readers its nine colours
# are further apart than seaborn's "colorblind" ones.
COLOURS = ["#332288", "#CC6677", "#117733", "#88CCEE", "#882255"]
COLOURS += ["#999933", "#44AA99", "#AA4499", "#DDCC77"]
NARROWEST = 4.2  # inches: a single panel's title and legend need more room than the panel
MARKERS = "osD^vP*X"
LINES = ["-"] * 5 + ["--"] * 5
# These look the same in every figure and run, whichever of them a figure shows.
REGULARIZERS = ["gradient", "hessian", "gradient-sampled", "taylor", "cure", "jacobian"]
REGULARIZERS += ["adversarial-linf", "adversarial-l2", "trades"]
# Bands have no edge, and neither have the markers on lines.
BAND = {"err_kws": {"alpha": 0.15, "lw": 0}, "markeredgewidth": 0, "markersize": 6}
# What `summary` makes of a mean and its bounds, seaborn draws as they are.
SUMMARY = {"estimator": "median", "errorbar": ("pi", 100), **BAND}


def regularizer_styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
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
    return {"none": {"color": "black", "marker": "<", "ls": "-"}, **styles}


def by_regularizer(names: Iterable[str]) -> dict[str, Any]:
    """Return the keywords that make seaborn draw each regularizer in its style."""
    names = list(dict.fromkeys(names))
    styles = regularizer_styles(names)
    return {
        "hue": "regularizer",
        "style": "regularizer",
        "hue_order": names,
        "style_order": names,
        "palette": {name: style["color"] for name, style in styles.items()},
        "markers": {name: style["marker"] for name, style in styles.items()},
        "dashes": {name: "" if style["ls"] == "-" else (3, 1.5) for name, style in styles.items()},
    }


def by_lam(table: pd.DataFrame) -> dict[str, Any]:
    """Return the keywords that make seaborn draw a line per λ: plain training black and dashed.

    Args:
        table: rows with ``regularizer`` and ``lam``; gets a column ``λ`` with what the legend says.
    """
    import seaborn as sns

    plain = table["regularizer"] == "none"
    table["λ"] = table["lam"].map("λ = {:g}".format).where(~plain, "no penalty")
    table["λ"] = table["λ"].where(~imported(table), "trained elsewhere")
    lams = list(dict.fromkeys(table[~plain].sort_values("lam")["λ"]))
    names = ["no penalty"] * bool(plain.any()) + lams
    colours = dict(zip(lams, sns.color_palette("flare", len(lams)), strict=True))
    return {
        "hue": "λ",
        "style": "λ",
        "hue_order": names,
        "style_order": names,
        "palette": {"no penalty": "black", **colours},
        "dashes": {"no penalty": (3, 1.5), **dict.fromkeys(lams, "")},
    }


def with_lam(name: str, lam: float) -> str:
    """Return a regularizer's name with its penalty strength; without a penalty, there is none."""
    return f"{name}, λ = {lam:g}" if lam else name


def of_seeds(count: int) -> str:
    """Return ``"1 seed"`` or ``"3 seeds"``."""
    return f"{count} seed{'' if count == 1 else 's'}"


def interval_name(seeds: int) -> str:
    """Return what the interval of :func:`input_hessian.experiment.statistics.contrast` is over."""
    return f"95% interval over images{' and seeds' if seeds > 1 else ''}"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return three rows per row, ``value`` its ``low``, ``mean`` and ``high``, in percent.

    The median of the three is the mean and their range the interval: with :data:`SUMMARY`, seaborn
    draws the statistics that the table holds and computes none.
    """
    others = [column for column in table if column not in ("low", "mean", "high")]
    long = table.melt(others, ["low", "mean", "high"], "bound")
    return long.assign(value=100 * long["value"])


def headline_grid(
    table: pd.DataFrame, headline: dict[str, dict[str, Sequence[float]]], **options: Any
) -> FacetGrid:
    """Return a grid with a row per dataset and a panel per norm and radius, titled.

    Args:
        table: rows with ``dataset``, ``norm`` and ``epsilon``; those at other radii are left out.
        headline: the radii, per dataset and norm.
        options: of seaborn's FacetGrid.
    """
    import seaborn as sns

    panels = [
        (dataset, norm, float(epsilon))
        for dataset, radii in headline.items()
        for norm, values in radii.items()
        for epsilon in values
    ]
    panels = pd.DataFrame(panels, columns=["dataset", "norm", "epsilon"])
    table = table.merge(panels.assign(panel=panels.groupby("dataset").cumcount()))
    grid = sns.FacetGrid(
        table,
        row="dataset",
        col="panel",
        row_order=[dataset for dataset in headline if dataset in set(table["dataset"])],
        legend_out=False,
        **options,
    )
    for (dataset, panel), axes in grid.axes_dict.items():
        rows = table[(table["dataset"] == dataset) & (table["panel"] == panel)]
        axes.set_visible(not rows.empty)  # the datasets may have different numbers of radii
        for norm, epsilon in rows[["norm", "epsilon"]].drop_duplicates().itertuples(index=False):
            axes.set_title(f"{dataset_title(dataset)}, {NORMS[norm]} ε = {epsilon:g}")
    return grid


def crosses(axes: Axes, x: pd.DataFrame, y: pd.DataFrame, **style: Any) -> None:
    """Draw a point per row, with bars in both directions.

    Args:
        axes: where to draw.
        x: columns ``mean, low, high``, one row per point.
        y: the same, with the same index.
        style: keywords of a line.
    """
    bars = {
        f"{name}err": [table["mean"] - table["low"], table["high"] - table["mean"]]
        for name, table in (("x", x), ("y", y))
    }
    axes.errorbar(x["mean"], y["mean"], **bars, elinewidth=0.8, **style)


def legend_handles(grid: FacetGrid) -> list[Artist]:
    """Return the labelled handles of the legend that seaborn drew, which is removed."""
    handles = grid.legend.legend_handles
    for handle, text in zip(handles, grid.legend.texts, strict=True):
        handle.set_label(text.get_text())
    grid.legend.remove()
    return handles


def show_image(axes: Axes, image: Tensor, title: str, **options: Any) -> None:
    """Draw an image ``[channels, height, width]`` in [0, 1], grey or in colour."""
    axes.imshow(image.movedim(0, -1).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)


def nothing_to_draw(
    *paths: Path, reason: str = "every cell diverged: see tables/cells.csv"
) -> None:
    """Write a figure that says why it is empty."""
    figure, axes = plt.subplots(figsize=(4, 1))
    axes.text(0.5, 0.5, reason, ha="center", va="center")
    axes.axis("off")
    save(figure, paths)


def save(
    figure: Figure,
    paths: Iterable[Path],
    title: str = "",
    handles: Sequence[Artist] = (),
    columns: int = 4,
    legend_title: str | None = None,
) -> None:
    """Write the figure to every path, without a date: equal data, equal bytes.

    A PNG gets a palette of 256 colours: a third of the size, and no visible difference.  A PDF is for
    print, where the caption says what the title does.

    Args:
        figure: its panels; it grows by the heights of title and legend, and to a least width.
        paths: each a PNG or a PDF.
        title: above all panels of a PNG; lines wider than the figure are broken.
        handles: labelled artists of one legend below all panels: inside them, it would hide data.
        columns: of the legend, at most.
        legend_title: of the legend.
    """
    width, height = figure.get_size_inches()
    if title and width < NARROWEST:
        figure.set_figwidth(width := NARROWEST)
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, int(14 * width))]
    rows = 0
    if handles:
        place = {"handles": handles, "loc": "outside lower center", "title": legend_title}
        columns = min(columns, len(handles))
        legend = figure.legend(ncols=columns, **place)
        while columns > 1 and legend.get_window_extent().width > figure.bbox.width:
            legend.remove()
            columns -= 1
            legend = figure.legend(ncols=columns, **place)
        rows = -(-len(handles) // columns) + bool(legend_title)
    for path in sorted(paths, key=lambda path: path.suffix != ".png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        above = lines if path.suffix == ".png" else []
        figure.suptitle("\n".join(above))
        figure.set_figheight(height + 0.17 * (len(above) + rows))
        figure.set_layout_engine("constrained")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        if path.suffix == ".png":
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            image = Image.open(buffer).convert("RGB")
            image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        else:
            figure.savefig(path, metadata={"CreationDate": None})
    plt.close(figure)
