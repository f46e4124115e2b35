"""Attack one network, certify the l2 radius of every attacked image, and check one by the other."""

import attack
import pandas as pd
import torch

from input_hessian.certificate import certified_radius
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import load
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import predict
from input_hessian.experiment.models import load_model
from input_hessian.experiment.readers import read_parquet
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


def main(
    data: Input,
    model: Input,
    *,
    settings: Settings,
    device: str,
    threads: int,
    images: Output,
    perturbations: Output,
    evaluation: Output,
    examples: Output,
    certificate: Output,
) -> None:
    attack.main(
        data,
        model,
        settings=settings,
        device=device,
        threads=threads,
        images=images,
        perturbations=perturbations,
        evaluation=evaluation,
        examples=examples,
    )
    table = read_parquet(perturbations)
    table = table[(table["attack"] == "ddn") & (table["norm"] == "l2")].set_index("index")
    network, status = load_model(model)
    radius = pd.Series(dtype=float)
    if status == "finished":
        test = load(data, "test")
        chosen = torch.isin(test.index, torch.tensor(table.index.to_numpy()))
        shown, labels = test.images[chosen], test.labels[chosen]
        found = certified_radius(network, shown, labels)
        # What float32 calls wrong counts as wrong, however close.
        found = found.masked_fill(predict(network, shown).argmax(1) != labels, 0)
        radius = pd.Series(found.numpy(), index=test.index[chosen].numpy())
    table = table.assign(certified_radius=radius).reset_index()[COLUMNS]
    print(
        f"certified: {(radius > 0).sum()} of {len(radius)} images, largest radius {radius.max():.4g}"
    )
    check(table)
    write_atomically(certificate, table.to_parquet(index=False))
    model.with_name("checkpoint.pt").unlink(missing_ok=True)  # see train.py


if __name__ == "__main__":
    run(main)
