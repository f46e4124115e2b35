"""Describe, per cell, how loss and margin change on the way to the smallest perturbations."""

import pandas as pd

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.command import Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.tables import CELL

# A bound counts as broken beyond this share of the distance: the path is known at single points.
TOLERANCE = 0.01
COLUMNS = [*CELL, "n", "bound_holds", "tightness", "margin_bound_holds", "margin_tightness"]
COLUMNS += ["rise", "by_gradient", "by_curvature", "remainder"]


def describe(images: pd.DataFrame) -> dict[str, float]:
    """Return the shares of images on which the bounds hold, their median tightness, and mean rises.

    Tightness is the bound over the distance, 1 at best.  ``rise`` is the loss at the adversarial
    example minus that at the image, in nats, and the sum of the three behind it.

    Args:
        images: one row per image, the columns of measure_path.
    """
    described = {"n": len(images)}
    for name in ("bound", "margin_bound"):
        ratio = images[name] / images["distance"]
        described[f"{name}_holds"] = (ratio <= 1 + TOLERANCE).mean()
        described[name.replace("bound", "tightness")] = ratio.median()
    means = images[["rise", "by_gradient", "by_curvature"]].mean()
    return described | dict(means) | {"remainder": means.iloc[0] - means.iloc[1] - means.iloc[2]}


def main(*, settings: Settings, csv: Output) -> None:
    rows = []
    for folder in cell_folders(settings["grid"]):
        images = read_parquet(folder / "path.parquet")
        if images.empty:  # the cell diverged, or no image was broken
            continue
        rows.append(images[CELL].iloc[0].to_dict() | describe(images))
    write_atomically(csv, pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False))


if __name__ == "__main__":
    run(main)
