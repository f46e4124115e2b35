"""The loss around one test image in the plane of its gradient and top Hessian eigenvector."""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from input_hessian.estimators import largest_eigenvalue
from input_hessian.experiment import datasets
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import run
from input_hessian.experiment.inference import label_margin, predict
from input_hessian.experiment.models import load_model
from input_hessian.experiment.plotting import DATASETS, NORMS, nothing_to_draw, save
from input_hessian.experiment.surface import loss_slice, plane
from input_hessian.layerwise import derivatives
from input_hessian.vectors import normalize

POINTS = 61
REACH = 1.5  # of the largest radius drawn
COLUMNS = 5
# Log 2 times powers of 2: below log 2 the prediction is certainly right.
LEVELS = np.log(2) * 2.0 ** np.arange(-6, 6)
CONVERGED = {"hvps": 80, "tolerance": 1e-3}  # as in measure_curvature


def choose_image(correct: torch.Tensor, margins: torch.Tensor) -> int:
    """Return, of the images that the most networks classify correctly, the one of median margin.

    The first of them may be one that no network loses within the radius, which shows nothing.

    Args:
        correct: bool, ``[networks, images]``.
        margins: label margins of one network, ``[images]``; of an even number, the lower median.
    """
    votes = correct.sum(0)
    candidates = (votes == votes.max()).nonzero().squeeze(1)
    return int(candidates[margins[candidates].argsort()[(len(candidates) - 1) // 2]])


def surface(model, image, label, offsets):
    """Return the slice, and the cosine between gradient and eigenvector."""
    hessian = derivatives(model, image[None], label[None])
    gradient = hessian.gradient.detach()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(gradient.shape, dtype=gradient.dtype, generator=generator)
    top = largest_eigenvalue(hessian.matvec, start, **CONVERGED).vector
    cosine = (normalize(gradient) * normalize(top)).sum().abs().item()
    return loss_slice(model, image, label, plane(gradient[0], top[0]), offsets), cosine


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="one per cell")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--images", type=int, required=True, help="size of the evaluation subset")
    parser.add_argument("--radii", type=json.loads, required=True, help="l2, of the circles")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()

    device = configure("cpu", 1)
    cells = []
    for path in args.models:
        model, status = load_model(path, device)
        if status == "finished":
            cell = json.loads(path.with_name("training.json").read_text())
            cells.append((cell, model.double()))
    if not cells:
        return nothing_to_draw(args.output)
    test = datasets.load(args.data, "test")
    chosen = torch.from_numpy(datasets.evaluation_subset(args.images, len(test.labels)))
    images, labels = test.images[chosen].double(), test.labels[chosen]
    logits = [predict(model, images) for _, model in cells]
    correct = torch.stack([at.argmax(1) == labels for at in logits])
    at = choose_image(correct, label_margin(logits[0], labels))
    image, label = images[at], labels[at]
    largest = max(args.radii)
    offsets = torch.linspace(-REACH * largest, REACH * largest, POINTS, dtype=torch.float64)

    columns = min(COLUMNS, len(cells) + 1)
    rows = -(-(len(cells) + 1) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.65 * columns + 0.9, 1.95 * rows + 0.9), squeeze=False
    )
    first, *panels = grid.flat
    first.imshow(image.movedim(0, -1).squeeze(-1), cmap="gray", vmin=0, vmax=1)
    first.set_title(f"the image:\n{datasets.DATASETS[args.dataset].class_names[label]}", fontsize=8)
    first.set(xticks=[], yticks=[])
    first.grid(visible=False)
    for k, (axes, (cell, model)) in enumerate(zip(panels, cells, strict=False)):
        found, cosine = surface(model, image, label, offsets)
        name, lam = cell["regularizer"], cell["lam"]
        print(f"{name} {lam:g}: |cos(g, top eigenvector)| = {cosine:.4f}")
        drawn = axes.contourf(
            offsets,
            offsets,
            found.loss.clamp_min(LEVELS[0]),
            levels=LEVELS,
            norm="log",
            cmap="cividis",
            extend="max",
        )
        if found.margin.min() < 0 < found.margin.max():
            axes.contour(offsets, offsets, found.margin, levels=[0], colors="red", linewidths=1.8)
        for radius in args.radii:
            axes.add_patch(plt.Circle((0, 0), radius, fill=False, ec="white", ls="--", lw=1.1))
        axes.plot(0, 0, "+", color="white", ms=6)
        weight = "" if name == "none" else f"\nλ = {lam:g}"
        axes.set_title(f"{name}{weight}", fontsize=8)
        axes.set_aspect("equal")
        leftmost = k == 0 or (k + 1) % columns == 0  # beside the image, or first of its row
        if leftmost:
            axes.set_ylabel("rest of the eigenvector", fontsize=8)
        axes.grid(visible=False)
        axes.tick_params(
            labelleft=leftmost,
            labelbottom=k + columns >= len(cells),  # nothing below
        )
    for axes in panels[len(cells) :]:
        axes.set_visible(False)
    bar = figure.colorbar(drawn, ax=list(grid.flat), shrink=0.8, pad=0.01)
    lowest, *others = (f"{level:.2g}" for level in LEVELS[::2])
    bar.set_ticks(LEVELS[::2], labels=[f"≤ {lowest}", *others])
    bar.set_label("loss of the label (nats)", fontsize=8)
    figure.supxlabel("along the gradient (pixel units)", fontsize=9)
    circles = ", ".join(f"{radius:g}" for radius in args.radii)
    figure.suptitle(
        f"{DATASETS.get(args.dataset, args.dataset)}: loss around one test image\n"
        f"red: the prediction changes; dashed: {NORMS['l2']} radius {circles}",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    run(main)
