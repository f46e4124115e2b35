"""Other losses than the cross-entropy, against explicit Hessians of these losses."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import CLASSES, Attention, batch_of, network, seeded
from helpers.oracles import assembled, assert_close, assert_slopes_agree
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from input_hessian import (
    CurePenalty,
    Estimator,
    GradientPenalty,
    HessianPenalty,
    InputHessian,
    JacobianPenalty,
    TaylorPenalty,
    derivatives,
    operator_norm,
)
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.penalty import build_penalty


def focal(logits, labels):
    """Lin et al. 2017, not convex in the logits."""
    entropy = F.cross_entropy(logits, labels, reduction="none")
    return (1 - (-entropy).exp()) ** 2 * entropy


def hinge(logits, labels):
    return (1 + logits - logits.gather(1, labels[:, None])).clamp_min(0).sum(1)


def squared(logits, labels):
    return (logits.softmax(1) - F.one_hot(labels, CLASSES)).square().sum(1)


WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
LOSSES = {
    "weighted, smoothed": partial(
        F.cross_entropy, weight=WEIGHTS, label_smoothing=0.1, reduction="none"
    ),
    "focal": focal,
    "squared": squared,
}
MODELS = {
    "mlp": network,
    "cnn": partial(network, "cnn"),
    "attention": lambda: Attention(weights=False).double(),
}
ESTIMATOR = Estimator("lanczos", "gradient", 17)  # one product more than there are pixels


def truth(model, images, labels, loss):
    """``ell``, ``||g||`` and ``H`` of every image, explicitly."""

    def of_one(flat, label):
        return loss(model(flat.view(1, *images.shape[1:])), label[None])[0]

    found = []
    for function in (of_one, torch.func.grad(of_one), torch.func.hessian(of_one)):
        with sdpa_kernel(SDPBackend.MATH):
            rows = [function(*pair) for pair in zip(images.flatten(1), labels, strict=True)]
        found.append(torch.stack(rows).detach())
    return found


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", MODELS)
def test_derivatives_are_those_of_the_loss(kind, name):
    model, (images, labels), loss = MODELS[kind](), batch_of(5), LOSSES[name]
    value, gradient, exact = truth(model, images, labels, loss)
    hessian = derivatives(model, images, labels, sampled=3, loss=loss)
    assert torch.allclose(hessian.loss, value, rtol=1e-12)
    assert_close(hessian.gradient.flatten(1), gradient[:3], 1e-11)
    assert_close(assembled(hessian.matvec, images[:3]), exact[:3], 1e-10)
    vector = torch.ones_like(images[:3]) / 4
    moved = hessian.difference(1e-6)(vector)
    assert torch.allclose(moved, hessian.matvec(vector), atol=1e-5 * exact.abs().max())


@pytest.mark.parametrize("name", LOSSES)
def test_penalties_are_those_of_the_loss(name):
    model, (images, labels), loss = network(), batch_of(4), LOSSES[name]
    value, gradient, exact = truth(model, images, labels, loss)
    slope, curvature = gradient.norm(dim=1), torch.linalg.eigvalsh(exact).abs().amax(1)
    for penalty, expected in [
        (GradientPenalty(0.7, loss=loss), 0.7 * slope),
        (HessianPenalty(0.7, loss=loss, estimator=ESTIMATOR), 0.7 * curvature),
        (TaylorPenalty(0.7, loss=loss, estimator=ESTIMATOR), 0.7 * slope + 0.245 * curvature),
    ]:
        objective = penalty(model, images, labels)
        assert torch.allclose(objective.loss, value, rtol=1e-12)
        assert torch.allclose(objective.penalty, expected, rtol=1e-8)
    for penalty in (CurePenalty(1, loss=loss), JacobianPenalty(1, loss=loss, fraction=0.5)):
        assert torch.allclose(penalty(model, images, labels).loss, value, rtol=1e-12)
    step = CurePenalty(1, loss=loss, step=1e-4)(model, images, labels).penalty
    along = gradient.sign() / gradient.sign().norm(dim=1, keepdim=True)
    product = (exact @ along[:, :, None]).flatten(1).norm(dim=1)
    assert torch.allclose(step, (1e-4 * product).square(), rtol=1e-2)


def test_training_descends_the_penalty_of_the_loss():
    model, (images, labels), loss = network(), batch_of(4), LOSSES["focal"]
    penalty = HessianPenalty(0.7, loss=loss, estimator=ESTIMATOR)
    objective = penalty(model, images, labels)

    def exact(network):
        value, _, hessians = truth(network, images, labels, loss)
        return (value + 0.7 * torch.linalg.eigvalsh(hessians).abs().amax(1)).sum()

    assert_slopes_agree((objective.loss + objective.penalty).sum(), exact, model)


def test_the_cross_entropy_by_name_is_the_default():
    model, (images, labels) = network(), batch_of(4)
    entropy = partial(F.cross_entropy, reduction="none")
    named = derivatives(model, images, labels, loss=entropy)
    default = derivatives(model, images, labels)
    assert torch.allclose(named.loss, default.loss, rtol=1e-14)
    assert torch.allclose(named.gradient, default.gradient, rtol=1e-10)
    assert torch.allclose(named.matvec(images), default.matvec(images), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_piecewise_linear_loss_has_no_curvature(layers, frozen):
    linear = [nn.Linear(16, CLASSES)] if layers == 1 else [nn.Linear(16, 6), nn.Linear(6, CLASSES)]
    model = nn.Sequential(nn.Flatten(), *linear).double().requires_grad_(not frozen)
    hessian = derivatives(model, *batch_of(4), loss=hinge)
    found = operator_norm(hessian, start="gradient", create_graph=True)
    assert torch.equal(found.norm, torch.zeros(4, dtype=torch.float64))
    if not frozen:
        penalty = HessianPenalty(1, loss=hinge, estimator=ESTIMATOR)
        objective = penalty(model, *batch_of(4))
        (objective.loss + objective.penalty).mean().backward()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (F.cross_entropy, r"loss: expected one value per image, of shape \(4,\), got shape \(\);"),
        (lambda logits, labels: logits, r"got shape \(4, 4\); .* reduction='none'"),
        (lambda logits, labels: 1.0, "got float"),
        (
            lambda logits, labels: squared(logits, labels) / squared(logits, labels).sum(),
            "loss: expected a loss image by image, but that of the first one changes by",
        ),
        (
            lambda logits, labels: squared(logits.detach(), labels),
            "loss: expected a function that is differentiable in the logits",
        ),
    ],
    ids=["mean", "matrix", "number", "coupled", "detached"],
)
def test_what_is_no_loss_of_each_image_is_refused(loss, message):
    for use in (
        lambda: derivatives(network(), *batch_of(4), loss=loss),
        lambda: GradientPenalty(1, loss=loss)(network(), *batch_of(4)),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_the_softmax_start_is_of_the_cross_entropy_alone():
    hessian = InputHessian(network(), *batch_of(4), loss=focal)
    with pytest.raises(ValueError, match="start: softmax assumes the cross-entropy; expected gra"):
        operator_norm(hessian)
    with pytest.raises(ValueError, match="start: softmax assumes the cross-entropy"):
        HessianPenalty(1, loss=focal)(network(), *batch_of(4))
    for start in ("gradient", "random"):
        assert operator_norm(hessian, start=start, generator=seeded(0)).norm.isfinite().all()


def test_a_configuration_names_no_loss():
    with pytest.raises(UserError, match="loss: Input should be callable"):
        build_penalty("hessian", lam=1.0, loss="focal")
