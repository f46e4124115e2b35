"""Measure how the loss and the margin change on the way to the smallest perturbation found."""

import math

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from input_hessian.experiment.attacks import AttackSettings, run_attack
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import evaluation_images
from input_hessian.experiment.devices import configure, with_float64
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import predict
from input_hessian.experiment.models import load_model
from input_hessian.experiment.tables import CELL, empty_table
from input_hessian.radius import path_derivatives, path_radius
from input_hessian.vectors import normalize, vector_norm

BATCH = 50  # images at a time, each at every point of its path
MEASURES = ["rise", "by_gradient", "by_curvature", "largest_curvature", "bound", "margin_bound"]
COLUMNS = ["index", "label", *CELL, "distance", *MEASURES]


def measure(
    model: nn.Module, images: Tensor, labels: Tensor, adversarial: Tensor, points: int
) -> pd.DataFrame:
    """Return a row per image, which the model classifies correctly and its adversarial example not.

    Args:
        model: maps images to logits ``[B, K]``, in float64.
        images: ``[B, *image]``.
        labels: ``[B]``.
        adversarial: ``[B, *image]``.
        points: of the path from the image to the adversarial example, both ends included.
    """
    perturbation = adversarial - images
    distance = vector_norm(perturbation)
    at = torch.linspace(0, 1, points, dtype=images.dtype, device=images.device)
    wrong = predict(model, adversarial).argmax(1).to(labels.device)

    def loss(x: Tensor, label: Tensor, other: Tensor) -> Tensor:
        return F.cross_entropy(model(x), label, reduction="none")

    def deficit(x: Tensor, label: Tensor, other: Tensor) -> Tensor:
        """Return how far the logit of the class that the path ends in is ahead of the label's."""
        logits = model(x)
        ahead, behind = (logits.gather(1, of[:, None])[:, 0] for of in (other, label))
        return ahead - behind

    columns = {"distance": distance}
    of_points = [of.repeat_interleave(points) for of in (labels, wrong)]
    for function, level, name in ((loss, math.log(2), "bound"), (deficit, 0.0, "margin_bound")):
        value, slope, curvature = path_derivatives(
            lambda x, function=function: function(x, *of_points),
            images,
            normalize(perturbation),
            distance[:, None] * at,
        )
        start = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(start, labels, wrong).sum(), start)
        columns[name] = path_radius(level - value[:, 0], vector_norm(gradient), curvature)
        if function is loss:
            columns |= {
                "rise": value[:, -1] - value[:, 0],
                "by_gradient": slope[:, 0] * distance,
                "by_curvature": curvature[:, 0] * distance**2 / 2,
                "largest_curvature": curvature.amax(1),
            }
    return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def main(
    data: Input, model: Input, *, settings: Settings, device: str, threads: int, path: Output
) -> None:
    place = with_float64(configure(device, threads))
    chosen = evaluation_images(data, settings["images"])
    network, status = load_model(model, place)
    tables = []
    if status == "finished":
        network, cell = network.double(), settings["cell"]
        images = chosen.images.double()
        attack = AttackSettings("ddn", "l2", steps=settings["steps"])
        # Any radius: what is asked for is the smallest perturbation.
        record = run_attack(network, images, chosen.labels, attack, [1.0], seed=cell["seed"])
        size = record.epsilon_found
        broken = ((size > 0) & size.isfinite()).nonzero().squeeze(1)
        for part in broken.split(BATCH):
            batch = (images[part], chosen.labels[part], record.adversarial[part])
            table = measure(network, *(x.to(place) for x in batch), settings["points"])
            tables.append(table.assign(index=chosen.index[part], label=chosen.labels[part], **cell))
        print(f"path: {len(broken)} of {len(images)} images", flush=True)
    table = pd.concat(tables) if tables else empty_table(COLUMNS)
    write_atomically(path, table[COLUMNS].to_parquet(index=False))


if __name__ == "__main__":
    run(main)
