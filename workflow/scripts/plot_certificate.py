"""Certified accuracy below the accuracy under attack, against the l2 radius."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.tables import read_table

LINES = {
    "distance": ("-", "under attack (DDN): at most"),
    "certified_radius": ("--", "certified: at least"),
}


def main(
    certificates: list[Input], cells: Input, *, dataset: str, png: Output, pdf: Output
) -> None:
    tables = [table for table in map(read_parquet, certificates) if not table.empty]
    if not tables:
        return plotting.nothing_to_draw(png, pdf)
    styles = plotting.regularizer_styles(read_table(cells)["regularizer"])
    images = pd.concat(tables)
    found = images["distance"]
    found = found[np.isfinite(found) & (found > 0)]
    largest = found.quantile(0.99) if len(found) else 1
    names = images["regularizer"].combine(images["lam"], plotting.with_lam).rename("cell")
    networks = images[["regularizer", "lam"]].drop_duplicates()
    share = networks.groupby("regularizer")["lam"].rank(pct=True)  # the smaller, the paler
    colours = {
        plotting.with_lam(name, lam): 1 - part * (1 - np.array(to_rgb(styles[name]["color"])))
        for name, lam, part in zip(networks["regularizer"], networks["lam"], share, strict=True)
    }

    figure, axes = plt.subplots(figsize=(5.2, 3.1))
    for column, (line, _) in LINES.items():
        # Of all seeds together, which is the mean over them.
        # Finite: of an image that nothing broke, seaborn would drop the distance.
        radii = images[column].clip(upper=2 * largest)
        sns.ecdfplot(
            x=radii,
            hue=names,
            palette=colours,
            stat="percent",
            complementary=True,
            ls=line,
            ax=axes,
        )
        axes.get_legend().remove()
    clean = (images["distance"] > 0).groupby(names).mean()
    handles = [
        Line2D([], [], color=colour, label=f"{name} (clean: {100 * clean[name]:.1f}%)")
        for name, colour in colours.items()
    ]
    handles += [Line2D([], [], color="0.4", ls=line, label=label) for line, label in LINES.values()]
    axes.set(xlabel=f"{plotting.NORMS['l2']} radius (pixel units)", ylabel="Robust accuracy (%)")
    axes.set(xlim=(0, largest), ylim=(-2, 102))
    title = (
        f"{plotting.dataset_title(dataset)}: certified and attacked accuracy of a small smooth MLP\n"
        f"n = {max(map(len, tables))} test images, {plotting.of_seeds(images['seed'].nunique())}"
    )
    plotting.save(figure, [png, pdf], title, handles, columns=2)


if __name__ == "__main__":
    run(main)
