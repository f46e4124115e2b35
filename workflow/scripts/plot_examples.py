"""Adversarial examples at the smallest radius that fools each network, one row per regularizer."""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from safetensors.torch import load_file

from input_hessian.experiment import datasets
from input_hessian.experiment.plotting import DATASETS, NORMS, nothing_to_draw, save


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--examples", type=Path, nargs="+", required=True, help="one per cell")
    parser.add_argument("--norm", required=True, help="linf or l2")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    names = datasets.DATASETS[args.dataset].class_names
    rows = []
    for path in args.examples:
        training = json.loads(path.with_name("training.json").read_text())
        tensors = load_file(path)
        if f"pgd_{args.norm}_images" in tensors:
            rows.append((training, tensors))
    if not rows:
        return nothing_to_draw(args.output)
    columns = len(rows[0][1]["labels"])
    figure, grid = plt.subplots(
        len(rows) + 1,
        columns,
        figsize=(0.78 * columns + 0.9, 1.06 * (len(rows) + 1) + 0.4),
        squeeze=False,
    )

    def show(axes, image, title, colour="black"):
        axes.imshow(image.movedim(0, -1).squeeze(-1), cmap="gray", vmin=0, vmax=1)
        axes.set_title(title, fontsize=7, color=colour, pad=2)
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)

    for axes, image, label in zip(grid[0], rows[0][1]["images"], rows[0][1]["labels"], strict=True):
        show(axes, image, names[label])
    grid[0][0].set_ylabel("clean", fontsize=7)
    for line, (training, tensors) in zip(grid[1:], rows, strict=True):
        found = tensors[f"pgd_{args.norm}_epsilon"]
        for k, axes in enumerate(line):
            epsilon = found[k].item()
            if epsilon == 0:
                title, colour = (
                    f"already\n{names[tensors[f'pgd_{args.norm}_prediction'][k]]}",
                    "0.5",
                )
            elif epsilon == float("inf"):
                title, colour = "withstands\nall", "tab:blue"
            else:
                seen = names[tensors[f"pgd_{args.norm}_prediction"][k]]
                title, colour = f"{epsilon:g}\n{seen}", "black"
            show(axes, tensors[f"pgd_{args.norm}_images"][k], title, colour)
        label = training["regularizer"]
        if label != "none":
            label += f"\nλ = {training['lam']:g}"
        line[0].set_ylabel(label, fontsize=7)
    figure.suptitle(
        f"{DATASETS.get(args.dataset, args.dataset)}: PGD, smallest {NORMS[args.norm]} ε tried that\n"
        "fools the network, and what it then sees",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
