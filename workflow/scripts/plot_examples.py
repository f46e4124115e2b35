"""Adversarial examples at the smallest radius that fools each network, one row per regularizer."""

import math
import textwrap

import matplotlib.pyplot as plt
from safetensors.torch import load_file

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.data import class_names
from input_hessian.experiment.readers import read_json


def row_label(cell: dict) -> str:
    """Return the name of a cell, in lines that are no longer than a row is high."""
    parts = plotting.with_lam(cell["regularizer"], cell["lam"]).split(", ")
    return "\n".join(line for part in parts for line in textwrap.wrap(part, 16))


def main(
    examples: list[Input],
    training: list[Input],
    data: Input,
    *,
    dataset: str,
    norm: str,
    png: Output,
    pdf: Output,
) -> None:
    names = class_names(data)
    cells = [read_json(path) for path in training]
    # A diverged cell has no examples.
    rows = [
        (row_label(cell), tensors)
        for cell, tensors in zip(cells, map(load_file, examples), strict=True)
        if f"pgd_{norm}_images" in tensors
    ]
    if not rows:
        return plotting.nothing_to_draw(png, pdf)
    images, labels = rows[0][1]["images"], rows[0][1]["labels"]
    figure, grid = plt.subplots(
        len(rows) + 1,
        len(labels),
        figsize=(0.78 * len(labels) + 0.9, 1.06 * (len(rows) + 1)),
        squeeze=False,
    )
    small = {"fontsize": 7, "pad": 2}
    for axes, image, label in zip(grid[0], images, labels, strict=True):
        plotting.show_image(axes, image, names[label], **small)
    grid[0][0].set_ylabel("clean", fontsize=7)
    for line, (name, tensors) in zip(grid[1:], rows, strict=True):
        line[0].set_ylabel(name, fontsize=7)
        found = (tensors[f"pgd_{norm}_{what}"] for what in ("images", "epsilon", "prediction"))
        for axes, image, epsilon, seen in zip(line, *found, strict=True):
            title, colour = f"{epsilon:g}\n{names[seen]}", "black"
            if epsilon == 0:
                title, colour = f"already\n{names[seen]}", "0.5"
            elif epsilon == math.inf:
                title, colour = "withstands\nall", "tab:blue"
            plotting.show_image(axes, image, title, color=colour, **small)
    title = (
        f"{plotting.dataset_title(dataset)}: PGD, smallest {plotting.NORMS[norm]} radius ε tried that\n"
        "fools the network, and the class it then predicts"
    )
    plotting.save(figure, [png, pdf], title)


if __name__ == "__main__":
    run(main)
