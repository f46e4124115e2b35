"""What all figures share: the style, the colours, the words, and how a figure is saved."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

plt.style.use(Path(__file__).with_name("style.mplstyle"))

NORMS = {"linf": r"$\ell_\infty$", "l2": r"$\ell_2$"}
DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits": "Digits (8x8)"}
MARKERS = "osD^vP*X"


def regularizer_styles(names: Iterable[str]) -> dict[str, dict[str, object]]:
    """Return colour and marker per regularizer: black for plain training, else colour-blind safe."""
    others = [name for name in dict.fromkeys(names) if name != "none"]
    palette = sns.color_palette("colorblind")
    styles = {  # with more than eight, markers and colours repeat out of step
        name: {"color": palette[i % len(palette)], "marker": MARKERS[i % len(MARKERS)]}
        for i, name in enumerate(others)
    }
    return {"none": {"color": "black", "marker": "x"}, **styles}


def lam_colours(lams: Iterable[float]) -> dict[float, tuple]:
    """Return one colour per weight, light to dark as it grows (perceptually uniform)."""
    lams = sorted(set(lams))
    return dict(zip(lams, sns.color_palette("flare", len(lams)), strict=True))


def nothing_to_draw(paths: Iterable[Path]) -> None:
    """Write a figure that says that no cell finished."""
    figure, axes = plt.subplots(figsize=(4, 1))
    axes.text(0.5, 0.5, "every cell diverged: see tables/cells.csv", ha="center", va="center")
    axes.axis("off")
    save(figure, paths)


def save(figure: Figure, paths: Iterable[Path]) -> None:
    """Write the figure in every format asked for, without a date: equal data, equal bytes."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(path.suffix[1:])
        figure.savefig(path, metadata=metadata)
    plt.close(figure)
