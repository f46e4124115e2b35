"""What derivatives and norms really are, computed independently of the library.

Closed forms are in the tests themselves; here are the explicit Hessian (torch.func, forward over
reverse, float64), matrices with known eigenvalues, and central differences.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.networks import seeded

EPS = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


class SymmetricMaps:
    """``v -> H v`` for given symmetric matrices ``[B, d, d]``; counts its calls."""

    def __init__(self, matrices):
        self.matrices = matrices
        self.calls = 0

    def __call__(self, vector, *, create_graph=False):
        self.calls += 1
        return torch.einsum("bij,bj->bi", self.matrices, vector.flatten(1)).view_as(vector)

    @property
    def norm(self):
        return torch.from_numpy(np.abs(np.linalg.eigvalsh(self.matrices.numpy())).max(-1))


def random_maps(seed, batch, size, dtype=torch.float64):
    """Random symmetric matrices with eigenvalues of both signs, and a start for each."""
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(batch, size, size, dtype=dtype, generator=generator)
    start = torch.randn(batch, size, dtype=dtype, generator=generator)
    return SymmetricMaps(square + square.mT), start


def diagonal_map(*eigenvalues, dtype=torch.float64):
    return SymmetricMaps(torch.diag(torch.tensor(eigenvalues, dtype=dtype))[None])


def explicit_hessians(model, images, labels):
    """``H`` of every image as a matrix ``[B, d, d]``, forward over reverse."""
    shape = images.shape[1:]

    def loss(flat, label):
        return F.cross_entropy(model(flat.view(1, *shape)), label[None])

    hessian = torch.func.vmap(torch.func.hessian(loss))
    return hessian(images.flatten(1), labels).detach()


def assembled(matvec, images):
    """The matrices ``[B, d, d]`` behind a matvec, column by column."""
    unit = torch.eye(images[0].numel(), dtype=images.dtype)
    columns = [matvec(e.expand(len(images), -1).view_as(images)).flatten(1) for e in unit]
    return torch.stack(columns, 2).detach()


def assert_close(actual, expected, tolerance):
    """Entrywise, relative to the largest expected entry."""
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max()
    assert error <= tolerance * expected.abs().max(), f"error {error:.2e}"


def perturbed(model, direction, step):
    """The network with its parameters moved by ``step`` times ``direction``, as a function."""
    state = dict(model.named_parameters())
    moved = {name: state[name].detach() + step * direction[name] for name in state}
    return lambda images: torch.func.functional_call(model, moved, (images,))


def slope(function, model, direction, step=1e-5):
    """Differentiate ``function(model)`` along a direction of the parameters: value and error."""

    def difference(step):
        ahead, behind = (function(perturbed(model, direction, s)) for s in (step, -step))
        return (ahead - behind).item() / (2 * step)

    near, far = difference(step), difference(2 * step)
    rounding = 100 * EPS[torch.float64] * function(model).item() / step
    error = abs(far - near) + rounding  # the first is three times the truncation error
    assert error < 1e-4 * abs(near)
    return near, error


def random_direction(model, seed):
    generator = seeded(seed)
    return {
        name: torch.randn(p.shape, dtype=p.dtype, generator=generator)
        for name, p in model.named_parameters()
    }


def assert_slopes_agree(objective, reference, model):
    """Compare the gradient of ``objective`` with differences of ``reference`` in two directions."""
    gradients = torch.autograd.grad(objective, list(model.parameters()), allow_unused=True)
    for seed in range(2):
        direction = random_direction(model, seed)
        pairs = zip(gradients, direction.values(), strict=True)
        actual = sum((g * d).sum().item() for g, d in pairs if g is not None)
        expected, error = slope(reference, model, direction)
        assert actual == pytest.approx(expected, abs=error)


def true_derivatives(model, images, labels):
    """``g``, ``[B, d]``, and ``H``, ``[B, d, d]``, explicitly, one image at a time."""
    shape = images.shape[1:]

    def loss(flat, label):
        return F.cross_entropy(model(flat.view(1, *shape)), label[None])

    gradients = torch.func.vmap(torch.func.grad(loss))(images.flatten(1), labels)
    return gradients.detach(), explicit_hessians(model, images, labels)


def true_jacobian(model, images):
    """``J``, ``[B, K, d]``, explicitly, one image at a time."""
    shape = images.shape[1:]

    def logits(flat):
        return model(flat.view(1, *shape))[0]

    return torch.func.vmap(torch.func.jacrev(logits))(images.flatten(1)).detach()
