"""The way to an adversarial example: why the loss rises, and how far it has to go for that."""

import math

import measure_path
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers.networks import batch_of, network
from helpers.oracles import true_derivatives, true_jacobian

from input_hessian.experiment import datasets
from input_hessian.experiment.data import evaluation_images
from input_hessian.experiment.inference import predict
from input_hessian.experiment.models import build, load_model, save_model
from input_hessian.experiment.tables import CELL, empty_table
from input_hessian.vectors import normalize

POINTS = 41


def attacked(model, images):
    """Images, their predicted labels, and points along the gradient with another prediction."""
    labels = model(images).argmax(1)
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), labels, reduction="sum"), x)
    lengths = torch.linspace(0.005, 5, 1000, dtype=torch.float64)
    line = images + lengths[:, None, None, None, None] * normalize(gradient)
    wrong = model(line.flatten(0, 1)).argmax(1).view(1000, -1) != labels
    first, broken = wrong.long().argmax(0), wrong.any(0)
    adversarial = line[first, torch.arange(len(images))]
    return images[broken], labels[broken], adversarial[broken].detach()


@pytest.fixture(scope="module", params=[("softplus", 200), ("tanh", 40)], ids=lambda p: p[0])
def case(request):
    """A network, correctly classified images, their labels, adversarial examples; and the table."""
    activation, scale = request.param
    model, images = network(activation=activation, seed=3), batch_of(16)[0]
    with torch.no_grad():
        model[-1].weight *= scale  # sure of what it says
        model[-1].bias -= model(images).mean(0)  # no class wins everywhere
    batch = attacked(model, images)
    return model, *batch, measure_path.measure(model, *batch, POINTS)


def column(table, name):
    return torch.tensor(table[name].to_list(), dtype=torch.float64)


def line(images, adversarial, at):
    """Points ``[B, T, *image]`` at these shares of the way."""
    return images[:, None] + at[:, None, None, None] * (adversarial - images)[:, None]


def loss_curvature(model, points, labels, direction):
    """``u'Hu`` of the loss at points ``[B, T, *image]``, from explicit Hessians, ``[B, T]``."""
    hessians = true_derivatives(
        model, points.flatten(0, 1), labels.repeat_interleave(points.shape[1])
    )[1].view(*points.shape[:2], 16, 16)
    return torch.einsum("bi,btij,bj->bt", direction, hessians, direction)


def deficit_curvature(model, points, labels, others, direction):
    """``u'Hu`` of the difference of two logits, likewise."""

    def deficit(flat, label, other):
        logits = model(flat.view(1, 1, 4, 4))[0]
        return logits.gather(0, other[None])[0] - logits.gather(0, label[None])[0]

    hessians = torch.func.vmap(
        torch.func.vmap(torch.func.hessian(deficit), in_dims=(0, None, None))
    )(points.flatten(2), labels, others).detach()
    return torch.einsum("bi,btij,bj->bt", direction, hessians, direction)


def test_the_rise_is_gradient_curvature_and_the_integral_that_is_left(case):
    """``int_0^r (r - t) (f''(t) - f''(0)) dt``, by Gauss's rule over explicit Hessians."""
    model, images, labels, adversarial, table = case
    way = (adversarial - images).flatten(1)
    distance = way.norm(dim=1)
    before, after = (
        F.cross_entropy(model(x), labels, reduction="none") for x in (images, adversarial)
    )
    gradients, hessians = true_derivatives(model, images, labels)
    found = {name: column(table, name) for name in table}
    assert torch.allclose(found["distance"], distance, rtol=1e-12)
    assert torch.allclose(found["rise"], after - before, rtol=1e-9)
    assert torch.allclose(found["by_gradient"], (gradients * way).sum(1), rtol=1e-9)
    curvature = torch.einsum("bi,bij,bj->b", way, hessians, way)
    assert torch.allclose(found["by_curvature"], curvature / 2, rtol=1e-9)

    nodes, weights = (torch.from_numpy(x) / 2 for x in np.polynomial.legendre.leggauss(60))
    t = nodes + 0.5
    curvatures = loss_curvature(model, line(images, adversarial, t), labels, way)
    remainder = (weights * (1 - t) * (curvatures - curvature[:, None])).sum(1)
    assert (remainder.abs() > 0.1 * found["rise"]).sum() >= 3
    parts = found["by_gradient"] + found["by_curvature"] + remainder
    assert torch.allclose(parts, found["rise"], rtol=1e-4)


@pytest.mark.parametrize("name", ["bound", "margin_bound"])
def test_the_bounds_solve_their_equation_and_hold(case, name):
    """``|grad| r + M r^2/2 = gap``, ``M`` the largest of the explicit curvatures on the path."""
    model, images, labels, adversarial, table = case
    direction = F.normalize((adversarial - images).flatten(1), dim=1)
    points = line(images, adversarial, torch.linspace(0, 1, POINTS, dtype=torch.float64))
    logits = model(images).detach()
    if name == "bound":
        gap = math.log(2) - F.cross_entropy(logits, labels, reduction="none")
        steepest = true_derivatives(model, images, labels)[0].norm(dim=1)
        curvature = loss_curvature(model, points, labels, direction)
        largest = column(table, "largest_curvature")
        assert torch.allclose(largest, curvature.amax(1), rtol=1e-9)
        assert (largest > 2 * curvature[:, 0]).sum() >= 3
    else:
        others = model(adversarial).argmax(1)
        gap = logits.gather(1, labels[:, None]) - logits.gather(1, others[:, None])
        jacobian = true_jacobian(model, images)
        of_image = torch.arange(len(images))
        steepest = (jacobian[of_image, others] - jacobian[of_image, labels]).norm(dim=1)
        curvature = deficit_curvature(model, points, labels, others, direction)
        gap = gap.squeeze(1)
        assert (gap > 0).all()
    found, distance = column(table, name), column(table, "distance")
    level = steepest * found + curvature.amax(1) * found**2 / 2
    assert torch.allclose(level, gap.clamp_min(0), rtol=1e-6, atol=1e-9)
    assert (found > 0).sum() >= 6
    assert (found <= 1.01 * distance).all()


MODEL = {"architecture": "mlp", "width": 8, "image_shape": [3, 4, 5], "classes": 3}
TOY = {"dataset": "toy", "regularizer": "none", "lam": 0.0, "seed": 0}


def written(folder, status):
    """The table of a small network on random images, its paths, and both in memory."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (60, 3, 4, 5), dtype=torch.uint8, generator=generator)
    order = torch.arange(60)
    data = {"test_images": images, "test_labels": order % 3, "test_index": 100 + order}
    provenance = {"class_names": ["a", "b", "c"], "sha256": datasets.checksums(data)}
    datasets.save(data, folder / "toy.safetensors", provenance)
    torch.manual_seed(0)
    save_model(build(**MODEL), MODEL, folder / "model.safetensors", status)
    measure_path.main(
        folder / "toy.safetensors",
        folder / "model.safetensors",
        settings={"images": 40, "steps": 50, "points": 21, "cell": TOY},
        device="cpu",
        threads=1,
        path=folder / "path.parquet",
    )
    return pd.read_parquet(folder / "path.parquet")


def test_a_row_for_every_image_that_was_classified_correctly(tmp_path, monkeypatch):
    """Each under its own index and label, whatever the size of a batch."""
    whole = written(tmp_path, "finished")
    chosen = evaluation_images(tmp_path / "toy.safetensors", 40)
    model, _ = load_model(tmp_path / "model.safetensors")
    right = predict(model, chosen.images).argmax(1) == chosen.labels
    assert whole["index"].tolist() == chosen.index[right].tolist()
    assert whole["label"].tolist() == chosen.labels[right].tolist()
    assert (whole[CELL] == list(TOY.values())).all(axis=None)
    assert 5 < len(whole) < 40
    assert (whole["distance"] > 0).all()
    for bound in ("bound", "margin_bound"):
        assert (whole[bound] <= 1.01 * whole["distance"]).all()
    monkeypatch.setattr(measure_path, "BATCH", 4)
    pd.testing.assert_frame_equal(written(tmp_path, "finished"), whole, rtol=1e-9)


def test_no_row_for_a_diverged_cell(tmp_path):
    table = written(tmp_path, "diverged")
    pd.testing.assert_frame_equal(table, empty_table(measure_path.COLUMNS))
