"""What the layerwise passes save, by the layers of a small convolutional network.

A training step with two products of power iteration for every image, or for an eighth of them: layer
by layer, by double backpropagation, and plain.  One step of each in turn, on one CPU core; processor
time, over the plain step.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from readme import write_table
from torch import nn

from input_hessian.estimators import operator_norm
from input_hessian.experiment.provenance import environment
from input_hessian.hessian import InputHessian
from input_hessian.layerwise import LayerwiseHessian

RESULTS = Path(__file__).parent / "results/layers.csv"
BATCH, ROUNDS, WARMUP = 64, 21, 3
ACTIVATIONS = {
    "softplus": lambda: nn.Softplus(10),
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


def strided(activation) -> nn.Sequential:
    """Return the CNN of the experiment, of width 16."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, 2, 2), activation(), nn.Conv2d(16, 32, 5, 2, 2), activation()),
        *(nn.Flatten(), nn.Linear(32 * 49, 100), activation(), nn.Linear(100, 10)),
    )


def pooled(activation) -> nn.Sequential:
    """Return the same with average pooling in place of strides."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, 1, 2), activation(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 5, 1, 2), activation(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 49, 100), activation(), nn.Linear(100, 10)),
    )


def measure(name: str, model: nn.Module) -> list[dict]:
    """Return one row per way to take the step."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (BATCH,), generator=generator)
    parameters = list(model.parameters())

    def plain() -> None:
        torch.autograd.grad(F.cross_entropy(model(images), labels), parameters)

    def penalised(kind, sampled: int) -> None:
        hessian = kind(model, images, labels, sampled=sampled)
        norm = operator_norm(hessian, start="gradient", hvps=2, create_graph=True).norm
        torch.autograd.grad(hessian.loss.mean() + norm.mean(), parameters)

    steps = {("plain", 0): plain}
    for images_of in (BATCH, BATCH // 8):
        for way, kind in (("layer by layer", LayerwiseHessian), ("double", InputHessian)):
            steps[way, images_of] = partial(penalised, kind, images_of)
    seconds: dict = {key: [] for key in steps}
    for i in range(WARMUP + ROUNDS):
        for key, step in steps.items():
            began = time.process_time()
            step()
            if i >= WARMUP:
                seconds[key].append(time.process_time() - began)
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    return [
        {"network": name, "step": way, "sampled": n, "milliseconds": 1e3 * value}
        | {"cost": value / medians["plain", 0]}
        for (way, n), value in medians.items()
    ]


def markdown(table: pd.DataFrame) -> str:
    """Return the README's table."""
    costs = table.pivot(index="network", columns=["sampled", "step"], values="cost")
    lines = [
        "| network | all images: layer by layer | double backpropagation | gain | an eighth: layer by layer "
        "| double backpropagation | gain |",
        "|---" * 7 + "|",
    ]
    for name in table["network"].unique():
        cells = []
        for n in (BATCH, BATCH // 8):
            fast, double = costs.loc[name, (n, "layer by layer")], costs.loc[name, (n, "double")]
            cells += [f"{fast:.2f}", f"{double:.2f}", f"{double / fast:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    where = environment(torch.device("cpu"), threads=1)
    lines += [
        "",
        f"Batch {BATCH}, images 1x28x28, n = {ROUNDS} rounds; PyTorch {where['torch']}, one core of "
        f"{where['processor']}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure all networks and write table and README."""
    torch.set_num_threads(1)
    rows = []
    for build in (strided, pooled):
        for name, activation in ACTIVATIONS.items():
            torch.manual_seed(0)
            rows += measure(f"{build.__name__}, {name}", build(activation))
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS, index=False, float_format="%.4g")
    write_table("layers.py", markdown(table))


if __name__ == "__main__":
    main()
