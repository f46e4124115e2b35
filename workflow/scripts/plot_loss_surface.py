"""The loss around one test image in the plane of its gradient and top Hessian eigenvector."""

import json

import matplotlib.pyplot as plt
import numpy as np
import torch

from input_hessian.estimators import largest_eigenvalue
from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.data import class_names, evaluation_subset, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.inference import label_margin, predict
from input_hessian.experiment.models import load_model
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
    """Return the slice, and the cosine between gradient and eigenvector.

    Raises:
        ValueError: if these two span no plane.
    """
    hessian = derivatives(model, image[None], label[None])
    gradient = hessian.gradient.detach()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(gradient.shape, dtype=gradient.dtype, generator=generator)
    top = largest_eigenvalue(hessian.matvec, start, **CONVERGED).vector
    cosine = (normalize(gradient) * normalize(top)).sum().abs().item()
    return loss_slice(model, image, label, plane(gradient[0], top[0]), offsets), cosine


def main(
    models: list[Input],
    training: list[Input],
    data: Input,
    *,
    dataset: str,
    images: int,
    radii: list[float],
    png: Output,
    pdf: Output,
) -> None:
    device = configure("cpu", 1)
    cells = []
    for path, record in zip(models, training, strict=True):
        model, status = load_model(path, device)
        if status == "finished":
            cell = json.loads(record.read_text())
            cells.append((plotting.with_lam(cell["regularizer"], cell["lam"]), model.double()))
    if not cells:
        return plotting.nothing_to_draw(png, pdf)
    test = load(data, "test")
    chosen = torch.from_numpy(evaluation_subset(images, len(test.labels)))
    candidates, labels = test.images[chosen].double(), test.labels[chosen]
    logits = [predict(model, candidates) for _, model in cells]
    correct = torch.stack([at.argmax(1) == labels for at in logits])
    at = choose_image(correct, label_margin(logits[0], labels))
    image, label = candidates[at], labels[at]
    reach = REACH * max(radii, default=1)
    offsets = torch.linspace(-reach, reach, POINTS, dtype=torch.float64)
    found = {}
    for name, model in cells:
        try:
            found[name], cosine = surface(model, image, label, offsets)
            print(f"{name}: |cos(g, top eigenvector)| = {cosine:.4f}")
        except ValueError as error:  # constant, or of two classes and piecewise linear
            print(f"{name} is left out: {error}")
    if not found:
        reason = "no network's gradient and eigenvector span a plane"
        return plotting.nothing_to_draw(png, pdf, reason=reason)

    columns = min(COLUMNS, len(found) + 1)
    rows = -(-(len(found) + 1) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(1.65 * columns + 0.9, 1.95 * rows + 0.6),
        squeeze=False,
        layout="constrained",
    )
    first, *panels = grid.flat
    plotting.show_image(first, image, f"the image:\n{class_names(data)[label]}", fontsize=8)
    for k, (axes, (name, around)) in enumerate(zip(panels, found.items(), strict=False)):
        drawn = axes.contourf(
            offsets,
            offsets,
            around.loss.clamp_min(LEVELS[0]),
            levels=LEVELS,
            norm="log",
            cmap="cividis",
            extend="max",
        )
        if around.margin.min() < 0 < around.margin.max():
            axes.contour(offsets, offsets, around.margin, levels=[0], colors="red", linewidths=1.8)
        for radius in radii:
            axes.add_patch(plt.Circle((0, 0), radius, fill=False, ec="white", ls="--", lw=1.1))
        axes.plot(0, 0, "+", color="white", ms=6)
        axes.set_title(name.replace(", ", "\n"), fontsize=8)
        axes.set_aspect("equal")
        leftmost = k == 0 or (k + 1) % columns == 0  # beside the image, or first of its row
        if leftmost:
            axes.set_ylabel("Rest of the eigenvector", fontsize=8)
        axes.grid(visible=False)
        # Numbers where there is no panel to the left, or none below.
        axes.tick_params(labelleft=leftmost, labelbottom=k + columns >= len(found))
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    bar = figure.colorbar(drawn, ax=list(grid.flat), shrink=0.8, pad=0.01)
    lowest, *others = (f"{level:.2g}" for level in LEVELS[::2])
    bar.set_ticks(LEVELS[::2], labels=[f"≤ {lowest}", *others])
    bar.set_label("Loss of the label (nats)", fontsize=8)
    figure.supxlabel("Along the gradient (pixel units)")
    circles = ", ".join(f"{radius:g}" for radius in radii)
    dashed = f"; dashed: {plotting.NORMS['l2']} radius {circles}" if radii else ""
    title = (
        f"{plotting.dataset_title(dataset)}: loss around one test image\n"
        f"red: the prediction changes{dashed}"
    )
    plotting.save(figure, [png, pdf], title)


if __name__ == "__main__":
    run(main)
