"""Measure gradient, Hessian, margin and predicted radius of one cell, per attacked test image."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from input_hessian.estimators import largest_eigenvalue, operator_norm
from input_hessian.experiment.datasets import evaluation_subset, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import label_margin
from input_hessian.experiment.models import load_model
from input_hessian.experiment.tables import CELL
from input_hessian.layerwise import derivatives
from input_hessian.radius import predicted_radius
from input_hessian.vectors import vector_norm

# From a random start, so that no direction is favoured; the budget is spent only if need be.
CONVERGED = {"hvps": 80, "tolerance": 1e-3}
BATCH = 250  # Lanczos keeps two vectors a product and image: at most 250 MB for 784 pixels
COLUMNS = ["index", "label", *CELL, "correct", "loss", "margin", "logit_scale", "gradient_norm"]
COLUMNS += ["hessian_norm", "largest_eigenvalue", "converged", "predicted_radius"]


def measure(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[pd.DataFrame]:
    """Yield one table per batch, one row per image."""
    generator = torch.Generator(images.device).manual_seed(0)
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        hessian = derivatives(model, x, y)
        logits = hessian.logits.detach()
        gradient_norm = vector_norm(hessian.gradient.detach())
        norm = operator_norm(
            hessian, method="lanczos", start="random", generator=generator, **CONVERGED
        )
        start = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        largest = largest_eigenvalue(hessian.matvec, start, **CONVERGED)
        loss = hessian.loss.detach()
        columns = {
            "correct": logits.argmax(1) == y,
            "loss": loss,
            "margin": label_margin(logits, y),
            "logit_scale": logits.abs().amax(1),
            "gradient_norm": gradient_norm,
            "hessian_norm": norm.norm,
            "largest_eigenvalue": largest.value,
            "converged": norm.converged & largest.converged,
            "predicted_radius": predicted_radius(loss, gradient_norm, largest.value),
        }
        yield pd.DataFrame({name: value.cpu().numpy() for name, value in columns.items()})


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="the cell, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--model", type=Path, required=True, help="safetensors of train")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="output: per image, parquet")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    if device.type == "mps":  # has no float64
        device = torch.device("cpu")
    test = load(args.data, "test")
    chosen = torch.from_numpy(evaluation_subset(args.settings["images"], len(test.labels)))
    model, status = load_model(args.model, device)
    table = pd.DataFrame(columns=COLUMNS)
    if status == "finished":
        # In float64: where the softmax is nearly one-hot, float32 rounds p - y to zero.
        images, labels = test.images[chosen].to(device).double(), test.labels[chosen].to(device)
        table = pd.concat(measure(model.double(), images, labels), ignore_index=True)
        table = table.assign(index=test.index[chosen], label=labels.cpu(), **args.settings["cell"])
        print(f"converged: {table['converged'].mean():.4f} of {len(table)} images")
    write_atomically(args.output, table[COLUMNS].to_parquet(index=False))


if __name__ == "__main__":
    run(main)
