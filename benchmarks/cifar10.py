"""Estimate what config/cifar10.yaml costs on a GPU: operations counted, ratios of times measured.

A training step of every regularizer on one small batch of noise, in turn in one process: its time
over that of the plain step of the same round, and its floating-point operations (PyTorch counts
those of convolutions and matrix products, from their shapes).  What a GPU takes is then arithmetic,
with an assumed share of its throughput; no GPU is used.
"""

from __future__ import annotations

import time

import pandas as pd
import torch
import yaml
from readme import write_table
from snakemake.utils import update_config
from step_cost import HERE, random_batch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from input_hessian.experiment import models
from input_hessian.experiment.config import Config, read_config
from input_hessian.experiment.penalty import build_penalty
from input_hessian.experiment.plugins import load_plugin
from input_hessian.experiment.training import OneCycleAdam, training_step

BATCH, ROUNDS = 32, 5
# Float32 without TF32, as the pipeline computes: NVIDIA's data sheet of the A100; the share is ours.
GPU, PEAK, UTILIZATION = "A100", 19.5e12, 0.2
# Gradients that an attack takes of an image at one radius, where it does not succeed.
GRADIENTS = {"fgsm": 1, "apgd-ce": 100, "apgd-t": 900}


class Operations(TorchDispatchMode):
    """Count floating-point operations by PyTorch's formulas.

    ``FlopCounterMode`` does the same and attributes them to modules, by hooks that do not bear a
    gradient taken inside a step.
    """

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Add what an operator takes."""
        result = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def measure(config: Config) -> pd.DataFrame:
    """Return one row per regularizer: quartiles of the cost of a step, operations per image."""
    dataset = load_plugin("dataset", "cifar10").DATASET
    device = torch.device("cpu")
    images, labels = random_batch(dataset.image_shape, BATCH, device)
    generator, steps, operations = torch.Generator().manual_seed(0), {}, {}
    for name in config.regularizers:
        torch.manual_seed(0)
        model = models.build(
            **config.model, image_shape=dataset.image_shape, classes=len(dataset.class_names)
        )
        lam = config.regularizers[name].lams("cifar10")[0]
        penalty = build_penalty(**config.penalty(name, lam))
        optimizer = OneCycleAdam(model.parameters(), 1e-5, ROUNDS + 2)
        steps[name] = model, penalty, optimizer, images, labels, generator
        training_step(*steps[name])  # the first one also checks the network
        with Operations() as counter:
            training_step(*steps[name])
        operations[name] = counter.total / BATCH

    times = []
    for _ in range(ROUNDS):
        row = {}
        for name, step in steps.items():
            began = time.perf_counter()
            training_step(*step)
            row[name] = time.perf_counter() - began
        times.append(row)
    times = pd.DataFrame(times)
    ratios = times.div(times["none"], axis=0).quantile([0.25, 0.5, 0.75]).T
    return ratios.assign(operations=pd.Series(operations))


def gradients_of_attacks(config: Config) -> int:
    """Return how many gradients all attacks on a cell take of a test image at most."""
    entry, total = config.datasets["cifar10"], 0
    for attack in config.attacks:
        radii = getattr(entry.headline if "radii" in attack else entry.epsilons, attack["norm"])
        each = GRADIENTS.get(attack["attack"]) or attack["steps"] * attack.get("restarts", 1)
        total += each * (1 if attack["attack"] == "ddn" else len(radii))
    return total


def markdown(config: Config, measured: pd.DataFrame) -> str:
    """Return the table, with the arithmetic below it."""
    dataset = load_plugin("dataset", "cifar10").DATASET
    rate = PEAK * UTILIZATION
    lines = [
        "| regularizer | cost, measured | operations per image and step | ratio | epochs | networks |"
    ]
    lines[0] += " hours of each |"
    lines.append("|---" * 7 + "|")
    whole, plain = 0.0, measured.loc["none", "operations"]
    for name, row in measured.iterrows():
        epochs = config.training_of(name)["epochs"]
        networks = len(config.regularizers[name].lams("cifar10")) * len(config.seeds)
        hours = row["operations"] * dataset.sizes["train"] * epochs / rate / 3600
        whole += networks * hours
        cost = f"{row[0.5]:.2f} ({row[0.25]:.2f}-{row[0.75]:.2f})"
        lines.append(
            f"| {name} | {cost} | {row['operations'] / 1e9:.2f} G | {row['operations'] / plain:.2f} "
            f"| {epochs} | {networks} | {hours:.2f} |"
        )
    # An input gradient needs no gradients of the weights: two of plain training's three passes.
    networks = sum(len(e.lams("cifar10")) for e in config.regularizers.values()) * len(config.seeds)
    gradients, images = gradients_of_attacks(config), config.evaluation.images
    attacked = networks * gradients * images * plain * (2 / 3) / rate / 3600
    return "\n".join(
        [
            *lines,
            "",
            f"Measured: batch {BATCH}, CPU, 1 thread, n = {ROUNDS} rounds, median and quartiles, on a "
            f"machine that other work shared; PyTorch {torch.__version__}. Estimated: hours on an {GPU}, at "
            f"{UTILIZATION:.0%} of its {PEAK / 1e12:g} TFLOP/s in float32. Training all {networks} networks: "
            f"{whole:.1f} hours. Attacking {images} images of each: at most {attacked:.1f} hours, if none of "
            f"{gradients} gradients per image were saved.",
        ]
    )


def main() -> None:
    """Measure, and write the table."""
    torch.set_num_threads(1)
    mapping = yaml.safe_load((HERE.parent / "config.yaml").read_text())
    update_config(mapping, yaml.safe_load((HERE.parent / "config/cifar10.yaml").read_text()))
    config = read_config(mapping)
    text = markdown(config, measure(config))
    print(text)
    write_table("cifar10.py", text)


if __name__ == "__main__":
    main()
