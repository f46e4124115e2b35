"""Measure gradient, Hessian, margin and predicted radius of one cell, per attacked test image."""

import pandas as pd

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.curvature import measure
from input_hessian.experiment.data import evaluation_images
from input_hessian.experiment.devices import configure, with_float64
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.models import load_model
from input_hessian.experiment.tables import CELL, empty_table

COLUMNS = ["index", "label", *CELL, "correct", "loss", "margin", "logit_scale", "gradient_norm"]
COLUMNS += ["hessian_norm", "largest_eigenvalue", "converged", "predicted_radius"]


def main(
    data: Input, model: Input, *, settings: Settings, device: str, threads: int, curvature: Output
) -> None:
    place = with_float64(configure(device, threads))
    chosen = evaluation_images(data, settings["images"])
    network, status = load_model(model, place)
    table = empty_table(COLUMNS)
    if status == "finished":
        # In float64: where the softmax is nearly one-hot, float32 rounds p - y to zero.
        images, labels = chosen.images.to(place).double(), chosen.labels.to(place)
        table = pd.concat(measure(network.double(), images, labels), ignore_index=True)
        table = table.assign(index=chosen.index, label=chosen.labels, **settings["cell"])
    write_atomically(curvature, table[COLUMNS].to_parquet(index=False))


if __name__ == "__main__":
    run(main)
