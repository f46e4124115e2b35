"""Under no_grad, inference_mode or autocast, in half precision, and where numbers are lost."""

import pytest
import torch
from helpers.networks import batch_of, network, seeded
from helpers.oracles import SymmetricMaps
from torch import nn

from input_hessian import (
    AdversarialTraining,
    CurePenalty,
    GradientPenalty,
    HessianPenalty,
    InputHessian,
    JacobianPenalty,
    LayerwiseHessian,
    NoPenalty,
    TaylorPenalty,
    Trades,
    certified_radius,
    derivatives,
    largest_eigenvalue,
    operator_norm,
    predicted_radius,
)
from input_hessian.vectors import normalize

KINDS = [InputHessian, LayerwiseHessian]


def everything(kind, model, images, labels):
    """What the library says of a batch, all of it found here."""
    hessian = kind(model, images, labels)
    start = images.cos()
    found = [hessian.loss, hessian.gradient, hessian.logits, hessian.pullback(hessian.logits.sin())]
    found += [hessian.matvec(start), hessian.matvec(start, create_graph=True)]
    for method in ("power", "lanczos"):
        for start_name in ("softmax", "gradient"):
            norm = operator_norm(
                hessian, method=method, start=start_name, hvps=3, create_graph=True
            ).norm
            found.append(norm)
    if kind is InputHessian:
        found.append(hessian.difference(0.1)(normalize(start), create_graph=True))
        found.append(operator_norm(hessian, hvps=2, difference_step=0.1).norm)
    top = largest_eigenvalue(hessian.matvec, start, hvps=5, tolerance=1e-3).value
    radius = predicted_radius(hessian.loss.detach(), hessian.gradient.flatten(1).norm(dim=1), top)
    return [*found, top, radius, certified_radius(model, images, labels)]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_under_no_grad_and_in_inference_mode(kind, context):
    model, (images, labels) = network(), batch_of(4)
    expected = everything(kind, model, images, labels)
    with context():
        found = everything(kind, model, images.clone(), labels.clone())  # inference tensors, maybe
    for right, value in zip(expected, found, strict=True):
        assert torch.equal(value, right)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", KINDS)
def test_a_norm_found_under_no_grad_is_differentiable(kind, context):
    model, (images, labels) = network(), batch_of(4)
    gradients = []
    for inside in (torch.enable_grad, context):
        with inside():
            hessian = kind(model, images, labels)
            norm = operator_norm(hessian, create_graph=True).norm
        total = norm.sum() + hessian.loss.sum()
        gradients.append(torch.autograd.grad(total, list(model.parameters())))
    for right, value in zip(*gradients, strict=True):
        assert torch.equal(value, right)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use", ["evaluate", "product", "pullback", "norm", "eigenvalue"])
def test_autocast_is_refused(kind, use):
    model, (images, labels) = network(dtype=torch.float32), batch_of(4, dtype=torch.float32)
    hessian = kind(model, images, labels)
    uses = {
        "evaluate": lambda: kind(model, images, labels),
        "product": lambda: hessian.matvec(images),
        "pullback": lambda: hessian.pullback(hessian.logits),
        "norm": lambda: operator_norm(hessian),
        "eigenvalue": lambda: largest_eigenvalue(hessian.matvec, images, hvps=2),
    }
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=r"autocast: expected none, .* leave the autocast context"),
    ):
        uses[use]()


class Halved(nn.Module):
    def forward(self, features):
        return features.bfloat16()


def test_logits_of_half_precision_are_refused():
    model = network().append(Halved())
    with pytest.raises(ValueError, match=r"model: expected logits in float32 .* torch\.bfloat16"):
        derivatives(model, *batch_of(4))


class Answering(nn.Module):
    """Answers with what a function makes of another network's logits."""

    def __init__(self, answer):
        super().__init__()
        self.model, self.answer = network(), answer

    def forward(self, images):
        return self.answer(self.model(images))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda logits: (logits, logits), r"expected logits of shape \(4, K\), got a tuple; wrap"),
        (lambda logits: {"logits": logits}, "got a dict"),
        (lambda logits: logits.detach().numpy(), "got a ndarray"),
        (lambda logits: logits.to(torch.complex128), "got torch.complex128"),
        (torch.Tensor.detach, "expected logits that are differentiable in the images"),
        (
            lambda logits: torch.ones_like(logits, requires_grad=True),
            "differentiable in the images",
        ),
    ],
    ids=["tuple", "mapping", "NumPy", "complex", "detached", "constant"],
)
@pytest.mark.parametrize("sampled", [None, 2])
def test_what_is_no_tensor_of_differentiable_logits_is_refused(answer, message, sampled):
    if sampled and message.startswith("expected logits of shape"):
        message = message.replace("4", "2")
    with pytest.raises(ValueError, match=f"model: .*{message}"):
        derivatives(Answering(answer), *batch_of(4), sampled=sampled)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", ["softmax", "gradient"])
def test_lost_logits_are_never_an_eigenvalue(kind, start):
    """No unit of the first layer is active: autograd's gradient is zero, whatever the logits."""
    model, (images, labels) = network(activation="relu"), batch_of(4)
    with torch.no_grad():
        model[1].bias.fill_(-100)
        model[-1].bias[0] = torch.nan
    hessian = kind(model, images, labels)
    found = operator_norm(hessian, start=start, hvps=2, tolerance=0.1)
    assert found.norm.isnan().all()
    assert not found.converged.any()
    top = largest_eigenvalue(hessian.matvec, images, hvps=3, tolerance=0.1)
    assert top.value.isnan().all()
    assert not top.converged.any()


def test_one_lost_image_spoils_no_other():
    model, (images, labels) = network(activation="relu"), batch_of(4)
    images[1] = torch.nan
    for kind in KINDS:
        hessian = kind(model, images, labels)
        lost = operator_norm(hessian, hvps=2).norm.isnan()
        assert lost.tolist() == [False, True, False, False]


def test_a_norm_beyond_the_largest_number_has_not_converged():
    """``H v`` is finite and its length is not; nor is the residual, which must not pass."""
    a = torch.finfo(torch.float32).max * 0.9
    maps = SymmetricMaps(torch.tensor([[[0, a, a], [a, 0, 0], [a, 0, 0]]]))
    for method in ("power", "lanczos"):
        found = operator_norm(
            Maps(maps), method=method, start=torch.eye(3)[:1], hvps=1, tolerance=0.1
        )
        assert found.norm.isinf().all()
        assert not found.converged.any()


class Maps:
    """What operator_norm asks of derivatives, given a start."""

    def __init__(self, maps):
        self.matvec, self.gradient = maps, torch.zeros(1, 3)


PENALTIES = [
    GradientPenalty(1),
    HessianPenalty(1),
    HessianPenalty(1, fraction=0.5),
    TaylorPenalty(1),
    CurePenalty(1),
    JacobianPenalty(1),
    JacobianPenalty(1, fraction=0.5),
    AdversarialTraining(0.1, "l2"),
    Trades(0.1, "linf"),
]


def named(penalty):
    return f"{type(penalty).__name__} {getattr(penalty, 'fraction', '')}"


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("penalty", [NoPenalty(), *PENALTIES], ids=named)
def test_penalties_are_the_same_under_no_grad_and_in_inference_mode(penalty, context):
    model, batch = network(), batch_of(4)
    expected = penalty(model, *batch, seeded(0))
    with context():
        found = penalty(model, *(field.clone() for field in batch), seeded(0))
    for value, right in zip(found[:3], expected[:3], strict=True):
        assert torch.equal(value, right)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("penalty", PENALTIES, ids=named)
def test_every_term_computed_under_no_grad_trains(penalty, context):
    """Loss, penalty and norms, each on its own: a term without a graph would be left out silently."""
    model, batch = network(), batch_of(4)
    gradients = []
    for inside in (torch.enable_grad, context):
        with inside():
            objective = penalty(model, *(field.clone() for field in batch), seeded(0))
        terms = [objective.penalty, objective.gradient_norm, objective.hessian_norm]
        terms += [] if isinstance(penalty, AdversarialTraining) else [objective.loss]
        gradients.append(
            [
                torch.autograd.grad(
                    term.nansum(), list(model.parameters()), retain_graph=True, allow_unused=True
                )
                for term in terms
                if term is not None
            ]
        )
    for expected, found in zip(*gradients, strict=True):
        for right, value in zip(expected, found, strict=True):
            assert (value is None) == (right is None)
            assert value is None or torch.equal(value, right)


@pytest.mark.parametrize("penalty", PENALTIES, ids=named)
def test_penalties_train_on_images_that_inference_mode_made(penalty):
    model, batch, gradients = network(), batch_of(4), []
    with torch.inference_mode():
        inferred = tuple(field.clone() for field in batch)
    for images, labels in (batch, inferred):
        objective = penalty(model, images, labels, seeded(0))
        total = (objective.loss + objective.penalty).sum()
        gradients.append(torch.autograd.grad(total, list(model.parameters())))
    for value, right in zip(*gradients, strict=True):
        assert torch.equal(value, right)


class HalfInside(nn.Module):
    """Half precision that no input or output shows."""

    def __init__(self):
        super().__init__()
        self.model = network(dtype=torch.bfloat16)

    def forward(self, images):
        return self.model(images.bfloat16()).float()


FLOAT = {"dtype": torch.float32}
REFUSED = {
    "half parameters": (
        lambda: network(dtype=torch.bfloat16),
        batch_of(4, **FLOAT),
        r"model: expected parameters in float32 or float64, .* torch\.bfloat16 in '1\.weight'; use",
    ),
    "half inside": (HalfInside, batch_of(4, **FLOAT), r"bfloat16 in 'model\.1\.weight'"),
    "half images": (network, batch_of(4, dtype=torch.bfloat16), "images: expected float32 or"),
    "other precision": (
        lambda: network(**FLOAT),
        batch_of(4),
        r"images: expected torch\.float32 like the parameters of the model, got torch\.float64",
    ),
    "unknown layers": (
        lambda: network(activation="gelu", **FLOAT),
        batch_of(4),
        r"images: expected torch\.float32 like the parameters",
    ),
    "tuple": (lambda: Answering(lambda z: (z, z)), batch_of(4), "model: .* got a tuple; wrap"),
    "labels in floats": (network, (batch_of(4)[0], batch_of(4)[1].double()), "labels: .* int64"),
    "unknown labels": (network, (batch_of(4)[0], batch_of(4)[1] + 9), "labels: expected 0 to 3"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("penalty", PENALTIES, ids=named)
def test_what_no_penalty_can_use_is_refused_by_name(penalty, case):
    build, batch, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        penalty(build(), *batch, seeded(0))


@pytest.mark.parametrize("penalty", PENALTIES, ids=named)
def test_penalties_refuse_autocast(penalty):
    model, batch = network(**FLOAT), batch_of(4, **FLOAT)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=r"autocast: expected none, .* leave the autocast context"),
    ):
        penalty(model, *batch, seeded(0))


def test_plain_training_alone_may_be_in_half_precision():
    model, batch = network(**FLOAT), batch_of(4, **FLOAT)
    with torch.autocast("cpu", torch.bfloat16):
        assert NoPenalty()(model, *batch).logits.dtype == torch.bfloat16
    for case in ("tuple", "other precision"):
        build, batch, message = REFUSED[case]
        with pytest.raises(ValueError, match=message):
            NoPenalty()(build(), *batch)
