"""Train one cell: a network under one regularizer, penalty strength and seed."""

import json

import torch
from torch import nn

from input_hessian.experiment import models
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import class_names, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.penalty import build_penalty
from input_hessian.experiment.plugins import plugin_file
from input_hessian.experiment.provenance import environment, fingerprint, peak_memory_mb
from input_hessian.experiment.sources import source_files
from input_hessian.experiment.training import TrainingResult, TrainingSettings, train

COLUMNS = ["epoch", "loss", "penalty", "accuracy", "validation_loss", "validation_accuracy"]
COLUMNS += ["seconds", "steps"]


def main(
    data: Input,
    *,
    settings: Settings,
    device: str,
    threads: int,
    model: Output,
    training: Output,
    curve: Output,
) -> None:
    place = configure(device, threads)
    images, labels, _ = load(data, "train")
    validation = load(data, "validation")
    of_model = settings["model"] | {
        "image_shape": list(images.shape[1:]),
        "classes": len(class_names(data)),
    }
    where = environment(place, threads)
    code = source_files(
        __file__,
        plugin_file("penalty", settings["penalty"]["penalty"]),
        plugin_file("architecture", settings["model"]["architecture"]),
    )
    network, result = train(
        lambda: models.build(**of_model),
        build_penalty(**settings["penalty"]),
        (images, labels),
        (validation.images, validation.labels),
        TrainingSettings(**settings["training"], seed=settings["cell"]["seed"]),
        device=place,
        # Beside the model, but not a declared output: Snakemake deletes those before it repeats a
        # job. It stays until `collect` has the results, so that a repeated job trains nothing again.
        checkpoint=model.with_name("checkpoint.pt"),
        fingerprint=fingerprint(settings, where, [*code, data]),
    )
    models.save_model(network, of_model, model, result.status)
    rows = [",".join(COLUMNS), *(",".join(str(row[c]) for c in COLUMNS) for row in result.curve)]
    write_atomically(curve, "\n".join(rows) + "\n")
    record = describe(settings, network, result, place, where)
    write_atomically(training, json.dumps(record, indent=2) + "\n")
    print(f"{result.status}: {model}")


def describe(
    settings: dict, network: nn.Module, result: TrainingResult, place: torch.device, where: dict
) -> dict:
    """Return the record of one cell."""
    seconds = sum(row["seconds"] for row in result.curve)
    steps = sum(row["steps"] for row in result.curve)
    return {
        **settings["cell"],
        "status": result.status,
        "epochs": len(result.curve),
        "validation_accuracy": result.curve[-1]["validation_accuracy"] if result.curve else None,
        "parameters": sum(p.numel() for p in network.parameters()),
        "train_seconds": seconds,
        "milliseconds_per_step": 1000 * seconds / steps if steps else None,
        "peak_memory_mb": peak_memory_mb(place),
        **where,
        "settings": settings,
    }


if __name__ == "__main__":
    run(main)
