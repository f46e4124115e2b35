"""Lengths of tiny and huge vectors."""

import numpy as np
import pytest
import torch
from helpers.networks import seeded
from helpers.oracles import EPS

from input_hessian.vectors import normalize, vector_norm


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_vector_norm_neither_underflows_nor_overflows(dtype, scale):
    vectors = scale * torch.randn(3, 2, 4, dtype=dtype, generator=seeded(0))
    vectors.requires_grad_()
    expected = np.linalg.norm(vectors.detach().double().numpy().reshape(3, -1), axis=1)
    norm = vector_norm(vectors)
    tolerance = 10 * EPS[dtype]
    assert norm.tolist() == pytest.approx(expected.tolist(), rel=tolerance)
    (gradient,) = torch.autograd.grad(norm.sum(), vectors)
    assert torch.allclose(gradient, normalize(vectors), atol=tolerance)
    assert torch.allclose(vector_norm(normalize(vectors)), torch.ones(3, dtype=dtype))


def test_vector_norm_has_derivative_zero_at_zero():
    zero = torch.zeros(2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(vector_norm(zero).sum(), zero)
    assert torch.equal(gradient, torch.zeros(2, 3))
