"""Certify the l2 radius of every attacked test image of one network; check it against the attack."""

import argparse
from pathlib import Path

import pandas as pd
import torch

from input_hessian.certificate import certified_radius
from input_hessian.experiment.datasets import load
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import predict
from input_hessian.experiment.models import load_model
from input_hessian.experiment.tables import CELL

# The attack sees the network in float32, the certificate in float64.
ROUNDING = 1e-4
COLUMNS = ["index", "label", *CELL, "certified_radius", "distance"]


class CertificateError(RuntimeError):
    """An attack succeeded within a certified radius: the certificate is wrong."""


def check(table: pd.DataFrame) -> None:
    """Raise :class:`CertificateError` if an attack broke an image within its certified radius."""
    broken = table[table["certified_radius"] > table["distance"] + ROUNDING]
    if not broken.empty:
        first = broken.iloc[0]
        raise CertificateError(
            f"{len(broken)} of {len(table)} images are certified beyond the perturbation that an "
            f"attack found, e.g. test image {first['index']}: certified to "
            f"{first['certified_radius']:.6g}, broken at {first['distance']:.6g}"
        )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--model", type=Path, required=True, help="safetensors of train")
    parser.add_argument("--perturbations", type=Path, required=True, help="parquet of attack")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="output: per image, parquet")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    table = pd.read_parquet(args.perturbations)
    table = table[(table["attack"] == "ddn") & (table["norm"] == "l2")].set_index("index")
    model, status = load_model(args.model)
    radius = pd.Series(dtype=float)
    if status == "finished":
        test = load(args.data, "test")
        chosen = torch.isin(test.index, torch.tensor(table.index.to_numpy()))
        images, labels = test.images[chosen], test.labels[chosen]
        found = certified_radius(model, images, labels)
        # What float32 calls wrong counts as wrong, however close.
        found = found.masked_fill(predict(model, images).argmax(1) != labels, 0)
        radius = pd.Series(found.numpy(), index=test.index[chosen].numpy())
    table = table.assign(certified_radius=radius).reset_index()[COLUMNS]
    check(table)
    write_atomically(args.output, table.to_parquet(index=False))
    args.model.with_name("checkpoint.pt").unlink(missing_ok=True)  # see train.py


if __name__ == "__main__":
    run(main)
