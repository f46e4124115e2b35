"""Time one training step of every regularizer, interleaved in one process, on one batch."""

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import torch

from input_hessian import regularizers
from input_hessian.experiment import models
from input_hessian.experiment.datasets import DATASETS, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.training import training_step

WARMUP, ROUNDS = 3, 30


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--settings", type=json.loads, required=True, help="as JSON")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="output, CSV")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    dataset = DATASETS[args.dataset]
    split = load(args.data, "train")
    batch = slice(0, args.settings["batch_size"])
    images, labels = split.images[batch].to(device), split.labels[batch].to(device)
    generator = torch.Generator(device).manual_seed(0)

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    steps = {}
    for name, entry in args.settings["regularizers"].items():
        torch.manual_seed(0)
        model = models.build(
            **args.settings["model"],
            image_shape=dataset.image_shape,
            classes=len(dataset.class_names),
        ).to(device)
        steps[name] = (model, regularizers.build(**entry), torch.optim.Adam(model.parameters()))

    rows = []
    for repetition in range(WARMUP + ROUNDS):
        # One step of each in turn: what slows the machine down for a while slows all of them.
        for name, (model, regularizer, optimizer) in steps.items():
            synchronize()
            began = time.perf_counter()
            training_step(model, regularizer, optimizer, images, labels, generator)
            synchronize()
            seconds = time.perf_counter() - began
            if repetition >= WARMUP:
                rows.append(
                    {
                        "dataset": dataset.name,
                        "regularizer": name,
                        "round": repetition - WARMUP,
                        "batch_size": len(images),
                        "milliseconds": 1000 * seconds,
                    }
                )
    write_atomically(args.output, pd.DataFrame(rows).to_csv(index=False))


if __name__ == "__main__":
    run(main)
