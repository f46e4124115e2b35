"""The input Hessian against three independent oracles."""

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import ACTIVATIONS, CLASSES, Attention, Scaling, batch_of, network, seeded
from helpers.oracles import EPS, assembled, assert_close, explicit_hessians
from torch import nn

from input_hessian import InputHessian, LayerwiseHessian, operator_norm
from input_hessian.vectors import normalize, vector_norm


def test_matvec_of_softmax_regression_has_its_closed_form():
    images, labels = batch_of(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).double()
    hessian = InputHessian(model, images, labels)
    weight = model[1].weight.detach()
    p = hessian.logits.detach().softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    one_hot = F.one_hot(labels, CLASSES)
    assert_close(assembled(hessian.matvec, images), weight.T @ curvature @ weight, 1e-13)
    assert_close(hessian.gradient.detach().flatten(1), (p - one_hot) @ weight, 1e-13)
    assert_close(hessian.loss.detach(), -(p * one_hot).sum(1).log(), 1e-13)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("mlp", (1, 4, 4)), ("mlp", (3, 2, 5)), ("cnn", (1, 5, 7)), ("cnn", (3, 8, 8))],
)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_matvec_is_the_explicit_hessian(architecture, shape, activation):
    model = network(architecture, activation, shape)
    images, labels = batch_of(2, shape)
    hessian = InputHessian(model, images, labels)
    expected = explicit_hessians(model, images, labels)
    assert expected.abs().max() > 1e-5
    assert_close(assembled(hessian.matvec, images), expected, 1e-11)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_matvec_in_single_precision(architecture):
    shape = (3, 8, 8)
    model = network(architecture, shape=shape)
    images, labels = batch_of(2, shape, torch.float32)
    expected = explicit_hessians(model, images.double(), labels)
    single = InputHessian(model.float(), images, labels)
    # An inner product of n terms errs by at most n eps; four passes (forward, backward, and both
    # once more) chain four of them, the longest over all pixels.  Weights were rounded to eps too.
    tolerance = 4 * (images[0].numel() + 1) * EPS[torch.float32]
    assert_close(assembled(single.matvec, images), expected, tolerance)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("activation", ["softplus", "tanh", "gelu"])
def test_matvec_is_the_central_difference_of_the_gradient(architecture, activation):
    model = network(architecture, activation)
    images, labels = batch_of(3)
    vector = normalize(torch.randn(images.shape, dtype=torch.float64, generator=seeded(2)))
    hessian = InputHessian(model, images, labels)

    def difference(step):
        ahead = InputHessian(model, images + step * vector, labels).gradient
        behind = InputHessian(model, images - step * vector, labels).gradient
        return (ahead - behind).detach() / (2 * step)

    eps = EPS[torch.float64]
    step = eps ** (1 / 3)
    # The truncation error is c step^2 + O(step^4), so twice the step differs by 3 c step^2.
    # The gradient's rounding error, below 100 eps |g| in so small a network, is divided by step.
    truncation = vector_norm(difference(2 * step) - difference(step))
    rounding = 100 * eps * vector_norm(hessian.gradient.detach()) / step
    product = hessian.matvec(vector)
    assert (vector_norm(difference(step) - product) <= truncation + rounding).all()
    assert (truncation + rounding < 1e-6 * vector_norm(product)).all()


def test_difference_errs_by_half_the_step_times_the_third_derivative():
    images, labels = batch_of(3)
    hessian = InputHessian(network(), images, labels)
    vector = normalize(torch.randn(images.shape, dtype=torch.float64, generator=seeded(2)))
    exact = hessian.matvec(vector)
    errors = [hessian.difference(step)(vector) - exact for step in (2e-4, 1e-4, 1e-8)]
    # First order: half the step, half the error, up to the next order, 1e-4 times a ratio of
    # derivatives (below 30 here); then below eps |g| / step.
    assert_close(errors[0], 2 * errors[1], 3e-3)
    rounding = 100 * EPS[torch.float64] / 1e-8 * vector_norm(hessian.gradient.detach())
    assert (vector_norm(errors[2]) <= 1e-4 * 2 * vector_norm(errors[1]) + rounding).all()


def test_difference_is_differentiable_in_the_parameters():
    images, labels = batch_of(2)
    model = network()
    hessian = InputHessian(model, images, labels)
    vector = normalize(torch.randn(images.shape, dtype=torch.float64, generator=seeded(2)))
    step = 1e-4
    parameters = list(model.parameters())
    approximate = vector_norm(hessian.difference(step)(vector, create_graph=True)).sum()
    exact = vector_norm(hessian.matvec(vector, create_graph=True)).sum()
    approximate = torch.autograd.grad(approximate, parameters, retain_graph=True)
    exact = torch.autograd.grad(exact, parameters)
    for a, b in zip(approximate, exact, strict=True):
        assert_close(a, b, 100 * step)  # first order, as above
    assert not hessian.difference(step)(vector).requires_grad


@pytest.mark.parametrize("frozen", [False, True])
def test_matvec_of_a_network_that_ignores_the_image_is_zero(frozen):
    images, labels = batch_of(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).double()
    nn.init.zeros_(model[1].weight)
    hessian = InputHessian(model.requires_grad_(not frozen), images, labels)
    assert torch.equal(hessian.matvec(images), torch.zeros_like(images))


def test_frozen_parameters_and_a_plain_function_will_do():
    images, labels = batch_of(3)
    model = network().requires_grad_(False)
    exact = explicit_hessians(model, images, labels)
    assert_close(assembled(InputHessian(model, images, labels).matvec, images), exact, 1e-11)
    function = InputHessian(lambda x: model(x), images, labels)
    assert_close(assembled(function.matvec, images), exact, 1e-11)


def test_batch_norm_with_batch_statistics_is_rejected():
    images, labels = batch_of(3)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, CLASSES)
    ).double()
    with pytest.raises(ValueError, match=r"BatchNorm2d '1'.*model\.eval\(\).*GroupNorm"):
        InputHessian(model, images, labels)
    model.eval()
    hessian = InputHessian(model, images, labels)
    expected = explicit_hessians(model, images, labels)
    assert_close(assembled(hessian.matvec, images), expected, 1e-11)
    model[1] = nn.BatchNorm2d(4, track_running_stats=False).double().eval()
    with pytest.raises(ValueError, match="statistics of the batch"):
        InputHessian(model, images, labels)


PIXELS, TWO = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])


@pytest.mark.parametrize("passes", [InputHessian, LayerwiseHessian])
@pytest.mark.parametrize(
    ("outputs", "images", "labels", "message"),
    [
        (3, PIXELS.long(), TWO, "images: expected float32 or float64 in .*, got torch.int64"),
        (3, PIXELS.half(), TWO, "images: expected float32 or float64 .* got torch.float16"),
        (3, PIXELS.bfloat16(), TWO, "images: expected float32 or float64 .* got torch.bfloat16"),
        (3, PIXELS.to(torch.complex64), TWO, "images: expected .*, got torch.complex64"),
        (3, PIXELS, TWO.float(), r"labels: .* int64 of shape \(2,\), got torch.float32 of"),
        (3, PIXELS, TWO.int(), "labels: .*, got torch.int32"),
        (3, PIXELS, torch.tensor([0, 1, 2]), r"labels: .* got torch.int64 of shape \(3,\)"),
        (3, PIXELS, torch.eye(3).long()[:2], r"labels: .* got torch.int64 of shape \(2, 3\)"),
        (3, PIXELS, TWO + 2, "labels: expected 0 to 2, got values from 2 to 3"),
        (3, PIXELS, TWO - 100, "labels: expected 0 to 2, got values from -100 to -99"),
        (1, PIXELS, TWO, r"model: .* two classes .*\(2, K\), got an output of shape \(2, 1\)"),
        (None, PIXELS, TWO, r"model: expected logits .* got an output of shape \(2, 3, 2, 2\)"),
    ],
)
def test_bad_batches_are_explained(passes, outputs, images, labels, message):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, outputs or 1))
    model = nn.Sequential(nn.Conv2d(1, 3, 1)) if outputs is None else flat
    with pytest.raises(ValueError, match=message):
        passes(model, images, labels)


def test_dropout_thins_the_network_once_and_forbids_finite_differences():
    """Loss, gradient and products belong to one mask; a difference would mix two."""
    model = network().train()
    model.insert(3, nn.Dropout(0.5))
    images, labels = batch_of(3)
    torch.manual_seed(0)
    hessian = InputHessian(model, images, labels)
    torch.manual_seed(0)
    mask = model[3](torch.ones(3, 6, dtype=torch.float64))
    assert 0 < (mask == 0).sum() < mask.numel()

    for image in range(3):
        one = mask[image]
        thinned = nn.Sequential(*model[:3], Scaling(one), *model[4:])
        fixed = InputHessian(thinned, images[[image]], labels[[image]])
        assert_close(hessian.loss[[image]].detach(), fixed.loss.detach(), 1e-13)
        assert_close(hessian.gradient[[image]].detach(), fixed.gradient.detach(), 1e-13)
        expected = explicit_hessians(thinned, images[[image]], labels[[image]])
        assert_close(assembled(hessian.matvec, images)[[image]], expected, 1e-11)
    with pytest.raises(ValueError, match=r"Dropout '3' draws .* use exact products .* model\.eval"):
        operator_norm(hessian, difference_step=0.01)
    model.eval()
    operator_norm(InputHessian(model, images, labels), difference_step=0.01)


@pytest.mark.parametrize("weights", [True, False])
def test_attention(weights):
    torch.manual_seed(0)
    model = Attention(weights).double()
    images, labels = batch_of(2)
    hessian = InputHessian(model, images, labels)
    explicit = Attention(True).double()
    explicit.load_state_dict(model.state_dict())
    expected = explicit_hessians(explicit, images, labels)
    assert_close(assembled(hessian.matvec, images), expected, 1e-11)
    norm = operator_norm(hessian, start="softmax", hvps=2, create_graph=True).norm
    gradients = torch.autograd.grad(norm.sum(), list(model.parameters()), materialize_grads=True)
    assert all(g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)
    with pytest.raises(ValueError, match="MultiheadAttention 'attention' draws new dropout masks"):
        InputHessian(Attention(weights, 0.1).double(), images, labels).difference(0.1)


def test_images_and_model_are_left_as_they_were():
    model = network()
    images, labels = batch_of(2)
    before = images.clone()
    operator_norm(InputHessian(model, images, labels), method="lanczos", hvps=4)
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert all(p.grad is None for p in model.parameters())
