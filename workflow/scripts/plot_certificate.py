"""Certified accuracy under the accuracy that an attack leaves, against the l2 radius."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from input_hessian.experiment.plotting import (
    DATASETS,
    NORMS,
    nothing_to_draw,
    regularizer_styles,
    save,
)
from input_hessian.experiment.tables import CELL, read_table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificates", type=Path, nargs="+", required=True, help="one per cell")
    parser.add_argument("--cells", type=Path, required=True, help="table of collect")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    tables = [table for table in map(pd.read_parquet, args.certificates) if not table.empty]
    if not tables:
        return nothing_to_draw(args.output)
    styles = regularizer_styles(read_table(args.cells)["regularizer"])
    found = np.concatenate([table["distance"] for table in tables])
    found = found[np.isfinite(found) & (found > 0)]
    radii = np.linspace(0, np.quantile(found, 0.99) if len(found) else 1, 400)

    figure, axes = plt.subplots(figsize=(5.2, 3.4))
    for table in tables:
        cell = table[CELL].iloc[0]
        colour = styles[cell["regularizer"]]["color"]
        name = "no penalty"
        if cell["regularizer"] != "none":
            name = f"{cell['regularizer']}, λ = {cell['lam']:g}"
        for column, line in (("distance", "-"), ("certified_radius", "--")):
            accuracy = (table[column].to_numpy()[:, None] > radii).mean(0)
            label = name if column == "distance" else None
            axes.plot(radii, 100 * accuracy, color=colour, ls=line, label=label)
    axes.plot([], [], color="0.4", ls="-", label="attacked (DDN): at most")
    axes.plot([], [], color="0.4", ls="--", label="certified: at least")
    axes.set(
        xlabel=f"{NORMS['l2']} radius (pixel units)", ylabel="robust accuracy (%)", ylim=(-2, 102)
    )
    axes.set_xlim(0, radii[-1])
    axes.legend(loc="upper right")
    axes.set_title(
        f"{DATASETS.get(args.dataset, args.dataset)}: certified and attacked accuracy of a small "
        f"smooth MLP\nn = {max(map(len, tables))} test images, one seed"
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
