"""The slice of a loss against networks for which it can be written down."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from input_hessian import InputHessian
from input_hessian.estimators import largest_eigenvalue
from input_hessian.experiment.surface import BATCH, loss_slice, plane

SHAPE = (1, 2, 3)
# Beyond [0, 1], and more points than fit into one batch.
OFFSETS = torch.linspace(-1.5, 2.5, 24, dtype=torch.float64)
assert len(OFFSETS) ** 2 > BATCH


def vector(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, dtype=torch.float64, generator=generator)


def dot(a, b):
    return (a * b).sum().item()


class Quadratic(nn.Module):
    """Two logits ``(q(x), 0)`` with ``q(x) = c + w'x + x'A x / 2``."""

    def __init__(self):
        super().__init__()
        square = vector(4).flatten()[:, None] * vector(5).flatten()
        self.w, self.A, self.c = vector(3).flatten(), square + square.T, 0.3

    def forward(self, images):
        x = images.flatten(1)
        q = self.c + x @ self.w + torch.einsum("bi,ij,bj->b", x, self.A, x) / 2
        return torch.stack([q, torch.zeros_like(q)], 1)


def test_slice_of_a_linear_softmax():
    """Two classes: the loss is ``softplus(-m)`` with a margin ``m`` that is linear in a and b."""
    w, x, directions = vector(0), vector(1), (vector(2), vector(3))  # of any length here
    linear = nn.Linear(6, 2).double()
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.zeros(6), w.flatten()]))
        linear.bias.copy_(torch.tensor([0.0, 0.4]))
    model = nn.Sequential(nn.Flatten(), linear)
    found = loss_slice(model, x, torch.tensor(1), directions, OFFSETS)
    slopes = [dot(w, direction) for direction in directions]
    margin = 0.4 + dot(w, x) + OFFSETS[None] * slopes[0] + OFFSETS[:, None] * slopes[1]
    torch.testing.assert_close(found.margin, margin)
    torch.testing.assert_close(found.loss, F.softplus(-margin))
    other = loss_slice(model, x, torch.tensor(0), directions, OFFSETS)
    torch.testing.assert_close(other.margin, -margin)


def test_slice_of_a_quadratic():
    model, x = Quadratic(), vector(1)
    u, v = plane(vector(6), vector(7))
    found = loss_slice(model, x, torch.tensor(0), (u, v), OFFSETS)
    hessian, gradient = model.A, model.w + model.A @ x.flatten()
    a, b = OFFSETS[None], OFFSETS[:, None]
    u, v = u.flatten(), v.flatten()
    expected = model(x[None])[0, 0] + a * (u @ gradient) + b * (v @ gradient)
    expected = expected + a**2 / 2 * (u @ hessian @ u) + b**2 / 2 * (v @ hessian @ v)
    expected = expected + a * b * (u @ hessian @ v)
    torch.testing.assert_close(found.margin, expected)
    torch.testing.assert_close(found.loss, F.softplus(-expected))


def test_loss_rises_along_u_with_the_slope_of_the_gradient_and_is_flat_along_v():
    """In the plane of a network's own gradient and eigenvector, and its centre is the image."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)).double()
    x, label = vector(1)[None], torch.tensor([2])
    hessian = InputHessian(model, x, label)
    top = largest_eigenvalue(hessian.matvec, vector(8)[None], hvps=6)
    gradient = hessian.gradient[0].detach()
    h = 1e-4
    offsets = torch.tensor([-h, 0.0, h], dtype=torch.float64)
    found = loss_slice(model, x[0], label[0], plane(gradient, top.vector[0]), offsets).loss
    assert found[1, 1].item() == pytest.approx(hessian.loss.item())
    # central differences: the error is h^2/6 times the third derivative
    along_u, along_v = found[1, 2] - found[1, 0], found[2, 1] - found[0, 1]
    assert (along_u / (2 * h)).item() == pytest.approx(gradient.norm().item(), rel=1e-6)
    assert (along_v / (2 * h)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("angle", [1e-4, 0.3, 1.5, 2.8])
@pytest.mark.parametrize("scale", [1e-200, 1.0])
def test_plane_is_orthonormal_and_holds_both_vectors(angle, scale):
    g, other = vector(0), vector(1)
    g = g / g.norm()
    other = other - dot(other, g) * g
    other = other / other.norm()
    eigenvector = 3 * (math.cos(angle) * g + math.sin(angle) * other)
    u, v = plane(scale * g, eigenvector)
    torch.testing.assert_close(u, g)
    assert dot(v, v) == pytest.approx(1, abs=1e-12)
    assert dot(u, v) == pytest.approx(0, abs=1e-12)
    # an obtuse eigenvector is turned round first
    torch.testing.assert_close(v, other if angle < 2 else -other, atol=1e-9, rtol=0)


def test_sign_of_the_eigenvector_changes_nothing():
    u, v = plane(vector(0), vector(1))
    for sign in (1, -1):
        again = plane(vector(0), sign * vector(1))
        torch.testing.assert_close(again, (u, v))


@pytest.mark.parametrize(
    ("gradient", "eigenvector", "message"),
    [
        (vector(0), -2 * vector(0), "span a plane"),
        (torch.zeros(SHAPE), vector(0), "span a plane"),
        (vector(0), torch.zeros(SHAPE), "span a plane"),
        (vector(0), torch.full(SHAPE, math.nan), "span a plane"),
        (vector(0), vector(1).flatten(), r"expected the gradient's shape \(1, 2, 3\), got \(6,\)"),
    ],
)
def test_what_spans_no_plane_is_one_clear_error(gradient, eigenvector, message):
    with pytest.raises(ValueError, match=message):
        plane(gradient.double(), eigenvector.double())
