"""Top eigenpairs and trace of the input Hessian, against explicit Hessians and closed forms."""

import pytest
import torch
from helpers.networks import batch_of, network, seeded
from helpers.oracles import SymmetricMaps, diagonal_map, explicit_hessians, random_maps
from torch import nn

from input_hessian import derivatives, largest_eigenvalue, top_eigenpairs, trace


def by_absolute_value(eigenvalues):
    return eigenvalues.gather(1, eigenvalues.abs().argsort(1, descending=True))


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_top_eigenpairs_are_those_of_the_explicit_hessian(architecture):
    model = network(architecture)
    images, labels = batch_of(6)
    hessian = derivatives(model, images, labels)
    start = torch.randn(images.shape, dtype=images.dtype, generator=seeded(4))
    with torch.no_grad():  # as a user may call it
        found = top_eigenpairs(hessian.matvec, start, k=4, hvps=16)
    explicit = explicit_hessians(model, images, labels)
    expected = by_absolute_value(torch.linalg.eigvalsh(explicit))[:, :4]
    assert (expected[:, 0] * expected[:, 1:].amin(1) < 0).any()  # both signs among them
    assert torch.allclose(found.values, expected, rtol=1e-8)
    assert found.vectors.shape == (6, 4, *images.shape[1:])
    vectors = found.vectors.flatten(2)
    assert torch.allclose(vectors @ vectors.mT, torch.eye(4, dtype=vectors.dtype), atol=1e-10)
    images_of = torch.einsum("bij,bkj->bki", explicit, vectors)
    error = (images_of - expected[:, :, None] * vectors).flatten(2).norm(dim=2)
    assert (error <= 1e-7 * expected[:, :1].abs()).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_some_eigenvalue_lies_within_the_residual(dtype):
    matvec, start = random_maps(0, 5, 30, dtype)
    found = top_eigenpairs(matvec, start, k=5, hvps=9)
    assert matvec.calls == 9
    eigenvalues = torch.linalg.eigvalsh(matvec.matrices)
    distance = (found.values[:, :, None] - eigenvalues[:, None]).abs().amin(2)
    assert found.residuals.max() > 0.1  # not converged
    assert (distance <= found.residuals + 1e-5).all()
    assert (found.values.abs().diff(dim=1) <= 1e-5).all()


def test_the_first_pair_of_a_positive_hessian_is_its_largest_eigenvalue():
    matvec, start = random_maps(1, 5, 12)
    matvec.matrices += 20 * torch.eye(12)
    first = top_eigenpairs(matvec, start, k=2, hvps=4).values[:, 0]
    assert torch.allclose(first, largest_eigenvalue(matvec, start, hvps=4).value, rtol=1e-10)


def test_what_the_krylov_space_does_not_hold_is_zero():
    """The Hessian of softmax regression with two classes has rank 1."""
    images, _ = batch_of(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    matvec = derivatives(model, images, torch.tensor([0, 1, 0])).matvec
    start = torch.randn(images.shape, dtype=images.dtype, generator=seeded(0))
    found = top_eigenpairs(matvec, start, k=4, hvps=6)
    norm = found.values[:, 0]
    assert (norm > 0).all()
    assert (found.values[:, 1:].abs() <= 1e-12 * norm[:, None]).all()
    lengths = found.vectors.flatten(2).norm(dim=2)
    assert torch.allclose(lengths[:, 0], torch.ones(3).double())
    assert ((lengths == 0).sum(1) >= 2).all()  # its Krylov space has two dimensions


def test_values_are_scaled_and_separate_per_image():
    matvec, start = random_maps(8, 3, 6, torch.float32)
    reference = top_eigenpairs(matvec, start, k=3, hvps=6).values
    scales = torch.tensor([1e-30, 1.0, 1e15])[:, None]
    scaled = SymmetricMaps(matvec.matrices * scales[:, :, None])
    found = top_eigenpairs(scaled, start, k=3, hvps=6).values
    assert torch.allclose(found / scales, reference, rtol=1e-4)
    matvec.matrices[1] = torch.nan
    found = top_eigenpairs(matvec, start, k=3, hvps=6).values
    assert torch.allclose(found[::2], reference[::2], rtol=1e-5)
    assert found[1].isnan().all()


def test_the_trace_of_a_diagonal_hessian_is_exact():
    matvec = diagonal_map(-9.0, 2.0, 1.5)
    found = trace(matvec, torch.zeros(1, 3).double(), draws=3, generator=seeded(0))
    assert found.value.item() == -5.5
    assert found.standard_error.item() == 0
    assert trace(matvec, torch.zeros(1, 3).double(), draws=1).standard_error.isnan()


def test_the_trace_is_unbiased_and_its_error_is_the_stated_one():
    model = network("mlp")
    images, labels = batch_of(4)
    hessian = derivatives(model, images, labels)
    with torch.inference_mode():
        found = trace(hessian.matvec, images, draws=2000, generator=seeded(1))
    explicit = explicit_hessians(model, images, labels)
    diagonal = explicit.diagonal(dim1=1, dim2=2)
    assert ((found.value - diagonal.sum(1)).abs() <= 4 * found.standard_error).all()
    variance = 2 * (explicit.square().sum((1, 2)) - diagonal.square().sum(1))
    assert torch.allclose(found.standard_error, (variance / 2000).sqrt(), rtol=0.1)


@pytest.mark.parametrize(("k", "hvps"), [(0, 3), (4, 3), (1.0, 3), (1, None)])
def test_impossible_numbers_of_pairs_are_explained(k, hvps):
    matvec, start = random_maps(0, 1, 4)
    with pytest.raises(ValueError, match=f"k: expected from 1 to hvps.*k={k!r} and hvps={hvps!r}"):
        top_eigenpairs(matvec, start, k=k, hvps=hvps)


def test_a_trace_without_draws_is_explained():
    matvec, start = random_maps(0, 1, 4)
    with pytest.raises(ValueError, match="draws: expected at least 1, got 0"):
        trace(matvec, start, draws=0)
