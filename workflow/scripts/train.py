"""Train one cell: one network under one regularizer, weight and seed."""

import argparse
import json
from pathlib import Path

from input_hessian import models, regularizers
from input_hessian.datasets import DATASETS, load
from input_hessian.errors import run
from input_hessian.files import write_atomically
from input_hessian.provenance import environment, fingerprint, peak_memory_mb
from input_hessian.training import TrainingSettings, configure, train


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="the cell, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--library", type=Path, nargs="+", required=True, help="code it depends on")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True, help="output, safetensors")
    parser.add_argument("--training", type=Path, required=True, help="output, JSON")
    parser.add_argument("--curve", type=Path, required=True, help="output, CSV")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    cell = args.settings["cell"]
    dataset = DATASETS[cell["dataset"]]
    model_settings = {
        **args.settings["model"],
        "image_shape": list(dataset.image_shape),
        "classes": len(dataset.class_names),
    }
    where = environment(device, args.threads)
    # Beside the model, but not a declared output: Snakemake deletes those before it repeats a job.
    # It stays until `collect` has the cell's results, so that a repeated job trains nothing again.
    checkpoint = args.model.with_name("checkpoint.pt")

    train_split, validation = load(args.data, "train"), load(args.data, "validation")
    model, result = train(
        lambda: models.build(**model_settings),
        regularizers.build(**args.settings["regularizer"]),
        (train_split.images, train_split.labels),
        (validation.images, validation.labels),
        TrainingSettings(**args.settings["training"], seed=cell["seed"]),
        device=device,
        checkpoint=checkpoint,
        fingerprint=fingerprint(args.settings, where, [*args.library, args.data]),
    )

    models.save_model(model, model_settings, args.model, result.status)
    columns = [
        *("epoch", "loss", "penalty", "accuracy", "validation_loss", "validation_accuracy"),
        *("seconds", "steps"),
    ]
    rows = [",".join(columns), *(",".join(str(row[c]) for c in columns) for row in result.curve)]
    write_atomically(args.curve, "\n".join(rows) + "\n")
    seconds = sum(row["seconds"] for row in result.curve)
    steps = sum(row["steps"] for row in result.curve)
    record = {
        **cell,
        "status": result.status,
        "epochs": len(result.curve),
        "validation_accuracy": result.curve[-1]["validation_accuracy"] if result.curve else None,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": seconds,
        "milliseconds_per_step": 1000 * seconds / steps if steps else None,
        "peak_memory_mb": peak_memory_mb(device),
        **where,
        "settings": args.settings,
    }
    write_atomically(args.training, json.dumps(record, indent=2) + "\n")
    print(f"{result.status}: {args.model}")


if __name__ == "__main__":
    run(main)
