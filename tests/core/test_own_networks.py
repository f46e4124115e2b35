"""The networks and the training loop of docs/own-network.md."""

import re

import pytest
import torch
import torch.nn.functional as F
from helpers.repository import ROOT
from torch.nn.attention import SDPBackend, sdpa_kernel

from input_hessian import Estimator, HessianPenalty, InputHessian, derivatives, operator_norm

PAGE = (ROOT / "docs/own-network.md").read_text()
(BLOCK,) = (
    text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "nn.Module)" in text
)


@pytest.fixture(scope="module")
def documented():
    names = {"__name__": "block"}
    exec(BLOCK[: BLOCK.index("estimator = ")], names)
    return names


@pytest.mark.parametrize("name", ["Residual", "SelfAttention"])
def test_loss_and_norm_fall_in_the_documented_loop(documented, name):
    """Colours that tell ten classes apart: easily learnt, with the penalty and without."""
    labels = torch.arange(10)
    images = 0.2 * torch.rand(10, 3, 32, 32) + 0.8 * torch.rand(10, 3, 1, 1)
    found = {}
    for lam in (0, 3):
        torch.manual_seed(0)
        model = documented[name]()
        estimator = Estimator("lanczos", "gradient", 3)
        penalty = HessianPenalty(lam=lam, fraction=0.5, estimator=estimator)
        history = documented["train"](model, penalty, [(images, labels)] * 25)
        assert history[-1][0] < 0.9 * history[0][0]
        hessian = derivatives(model, images, labels)
        assert type(hessian) is InputHessian
        found[lam] = operator_norm(hessian, method="lanczos", start="gradient", hvps=8).norm.mean()
    assert found[3] < found[0] / 2


@pytest.mark.parametrize("name", ["Residual", "SelfAttention"])
def test_norms_are_those_of_the_explicit_hessian(documented, name):
    """On two images of 3x8x8, whose Hessians have 192 rows."""
    model = documented[name]().double()
    images, labels = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([3, 7])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 2  # far from linear

    def loss(flat, label):
        return F.cross_entropy(model(flat.view(1, 3, 8, 8)), label[None])

    with sdpa_kernel(SDPBackend.MATH):
        exact = [
            torch.autograd.functional.hessian(lambda x, y=y: loss(x, y), x.flatten())
            for x, y in zip(images, labels, strict=True)
        ]
        slopes = [
            torch.func.grad(loss)(x.flatten(), y) for x, y in zip(images, labels, strict=True)
        ]
    penalty = HessianPenalty(lam=1, estimator=Estimator("lanczos", "gradient", 40))
    objective = penalty(model, images, labels)
    norms = torch.linalg.eigvalsh(torch.stack(exact)).abs().amax(1)
    assert torch.allclose(objective.hessian_norm, norms, rtol=1e-6)
    assert torch.allclose(objective.gradient_norm, torch.stack(slopes).norm(dim=1), rtol=1e-10)
