"""Time one training step of every regularizer, interleaved in one process, on one batch."""

import time

import pandas as pd
import torch

from input_hessian.experiment import models
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import class_names, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.penalty import build_penalty
from input_hessian.experiment.training import OneCycleAdam, training_step

WARMUP = 3  # rounds that are not recorded


def main(
    data: Input,
    *,
    settings: Settings,
    dataset: str,
    device: str,
    threads: int,
    cost: Output,
) -> None:
    place = configure(device, threads)
    split = load(data, "train")
    batch = slice(0, settings["batch_size"])
    images, labels = split.images[batch].to(place), split.labels[batch].to(place)
    generator = torch.Generator(place).manual_seed(0)

    def synchronize() -> None:
        if place.type != "cpu":
            getattr(torch, place.type).synchronize()

    steps = {}
    for name, options in settings["regularizers"].items():
        torch.manual_seed(0)
        model = models.build(
            **settings["model"],
            image_shape=images.shape[1:],
            classes=len(class_names(data)),
        ).to(place)
        optimizer = OneCycleAdam(model.parameters(), 1e-3, WARMUP + settings["rounds"])
        steps[name] = (model, build_penalty(**options), optimizer)

    rows = []
    for repetition in range(WARMUP + settings["rounds"]):
        # One step of each in turn: what slows the machine down for a while slows all of them.
        for name, (model, penalty, optimizer) in steps.items():
            synchronize()
            began = time.perf_counter()
            training_step(model, penalty, optimizer, images, labels, generator)
            synchronize()
            seconds = time.perf_counter() - began
            if repetition >= WARMUP:
                rows.append(
                    {
                        "dataset": dataset,
                        "regularizer": name,
                        "round": repetition - WARMUP,
                        "batch_size": len(images),
                        "milliseconds": 1000 * seconds,
                    }
                )
        print(f"round {repetition + 1} of {WARMUP + settings['rounds']}", flush=True)
    table = pd.DataFrame(rows)
    write_atomically(cost, table.to_csv(index=False))
    median = table.groupby("regularizer", sort=False)["milliseconds"].median()
    print(f"median milliseconds per step:\n{median.round(2).to_string(header=False)}")


if __name__ == "__main__":
    run(main)
