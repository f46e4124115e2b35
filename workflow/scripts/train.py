"""Train cells: for each, a network under one regularizer, weight and seed.

Several cells, of the same dataset and regularizer, are trained together as one program.
"""

import argparse
import json
from pathlib import Path

import torch
from input_hessian.batched_training import divide, train_together
from torch import nn

from input_hessian import regularizers
from input_hessian.experiment import models
from input_hessian.experiment.datasets import DATASETS, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.provenance import environment, fingerprint, peak_memory_mb
from input_hessian.experiment.training import TrainingResult, TrainingSettings, train


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="the cells, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--library", type=Path, nargs="+", required=True, help="code it depends on")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="output, safetensors")
    parser.add_argument("--trainings", type=Path, nargs="+", required=True, help="output, JSON")
    parser.add_argument("--curves", type=Path, nargs="+", required=True, help="output, CSV")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    first = args.settings[0]
    dataset = DATASETS[first["cell"]["dataset"]]
    model_settings = {
        **first["model"],
        "image_shape": list(dataset.image_shape),
        "classes": len(dataset.class_names),
    }
    where = environment(device, args.threads)

    def build_model():
        return models.build(**model_settings)

    train_split, validation = load(args.data, "train"), load(args.data, "validation")
    data = (
        (train_split.images, train_split.labels),
        (validation.images, validation.labels),
    )

    for indices in divide([cell["regularizer"] for cell in args.settings]):
        cells = [args.settings[i] for i in indices]
        penalties = [cell["regularizer"] for cell in cells]
        settings = [
            TrainingSettings(**cell["training"], seed=cell["cell"]["seed"]) for cell in cells
        ]
        options = {
            "device": device,
            # Beside the (first) model, but not a declared output: Snakemake deletes those before
            # it repeats a job. It stays until `collect` has the results, so that a repeated job
            # trains nothing again.
            "checkpoint": args.models[indices[0]].with_name("checkpoint.pt"),
            "fingerprint": fingerprint({"cells": cells}, where, [*args.library, args.data]),
        }
        if len(cells) == 1:
            (penalty,), (own,) = penalties, settings
            results = [train(build_model, regularizers.build(**penalty), *data, own, **options)]
        else:
            results = train_together(build_model, penalties, *data, settings, **options)
        for i, (model, result) in zip(indices, results, strict=True):
            models.save_model(model, model_settings, args.models[i], result.status)
            write_curve(result, args.curves[i])
            record = describe(args.settings[i], model, result, device, where)
            write_atomically(args.trainings[i], json.dumps(record, indent=2) + "\n")
            print(f"{result.status}: {args.models[i]}")


def write_curve(result: TrainingResult, path: Path) -> None:
    """Write one row per epoch as CSV."""
    columns = [
        *("epoch", "loss", "penalty", "accuracy", "validation_loss", "validation_accuracy"),
        *("seconds", "steps"),
    ]
    rows = [",".join(columns), *(",".join(str(row[c]) for c in columns) for row in result.curve)]
    write_atomically(path, "\n".join(rows) + "\n")


def describe(
    settings: dict, model: nn.Module, result: TrainingResult, device: torch.device, where: dict
) -> dict:
    """Return the record of one cell."""
    seconds = sum(row["seconds"] for row in result.curve)
    steps = sum(row["steps"] for row in result.curve)
    return {
        **settings["cell"],
        "status": result.status,
        "epochs": len(result.curve),
        "validation_accuracy": result.curve[-1]["validation_accuracy"] if result.curve else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": seconds,
        "milliseconds_per_step": 1000 * seconds / steps if steps else None,
        "peak_memory_mb": peak_memory_mb(device),
        **where,
        "settings": settings,
    }


if __name__ == "__main__":
    run(main)
