"""Taylor propagation against double backpropagation: the same values, the same derivatives."""

import gc
import itertools
import weakref

import pytest
import torch
from helpers.networks import mlp, network
from torch import nn

from input_hessian import InputHessian, operator_norm
from input_hessian.layerwise import LayerwiseHessian
from input_hessian.vectors import vector_norm

ACTIVATIONS = [lambda: nn.Softplus(10, threshold=1e9), nn.Tanh, nn.ReLU, nn.SiLU, nn.GELU]


def batch(shape):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(5, *shape, dtype=torch.float64, generator=generator)
    weights = torch.randn(images.shape, dtype=torch.float64, generator=generator)
    return images, torch.randint(4, (5,), generator=generator), weights


QUANTITIES = {
    "loss": lambda h, w: h.loss * w[:, 0, 0, 0],
    "gradient": lambda h, w: vector_norm(h.gradient),
    "product": lambda h, w: (h.matvec(w, create_graph=True) * w.cos()).flatten(1).sum(1),
    "power": lambda h, w: operator_norm(h, start="gradient", hvps=3, create_graph=True).norm,
    "softmax start": lambda h, w: operator_norm(h, start="softmax", hvps=1, create_graph=True).norm,
    "lanczos": lambda h, w: (
        operator_norm(h, start="gradient", method="lanczos", hvps=3, create_graph=True).norm
    ),
    "all": lambda h, w: (
        operator_norm(h, start="gradient", hvps=2, create_graph=True).norm.square() * w[:, 0, 0, 0]
        + h.loss
        - vector_norm(h.gradient)
    ),
    "all, read early": lambda h, w: (
        h.loss
        - vector_norm(h.gradient)
        + operator_norm(h, start="gradient", hvps=2, create_graph=True).norm
    ),
}


def assert_same(model, shape):
    images, labels, weights = batch(shape)
    for quantity in QUANTITIES.values():
        results = []
        for kind in (InputHessian, LayerwiseHessian):
            value = quantity(kind(model, images, labels), weights)
            parameters = list(model.parameters())
            gradients = torch.autograd.grad(value.sum(), parameters, materialize_grads=True)
            results.append([value, *gradients])
        for expected, actual in zip(*results, strict=True):
            scale = expected.abs().max() + 1e-4  # a derivative may vanish (the last bias of ReLU)
            assert (actual - expected).abs().max() <= 1e-12 * scale


@pytest.mark.parametrize(
    "activation", ACTIVATIONS, ids=["softplus", "tanh", "relu", "silu", "gelu"]
)
@pytest.mark.parametrize(
    ("architecture", "shape"),
    [("mlp", (1, 4, 4)), ("cnn", (1, 5, 7)), ("cnn", (3, 8, 8)), ("cnn", (1, 28, 28))],
)
def test_layerwise_is_double_backpropagation(architecture, shape, activation):
    assert_same(network(architecture, activation, shape), shape)


OF_A_SAMPLE = {
    "loss": lambda h, w: h.loss * w[:, 0, 0, 0],
    "gradient": lambda h, w: torch.cat([vector_norm(h.gradient), h.loss * w[:, 0, 0, 0]]),
    "product": lambda h, w: torch.cat(
        [(h.matvec(w[:2], create_graph=True) * w[:2].cos()).flatten(1).sum(1), h.loss]
    ),
    "norm alone": lambda h, w: operator_norm(h, create_graph=True).norm,
    "all": lambda h, w: torch.cat(
        [operator_norm(h, create_graph=True).norm, h.loss, vector_norm(h.gradient)]
    ),
}


@pytest.mark.parametrize("quantity", OF_A_SAMPLE)
@pytest.mark.parametrize(("architecture", "shape"), [("mlp", (1, 4, 4)), ("cnn", (1, 5, 7))])
def test_sampled_images_alone_have_derivatives(architecture, shape, quantity):
    """Two of five images, against two passes of double backpropagation: those two, and the rest."""
    model = network(architecture, ACTIVATIONS[0], shape)
    images, labels, weights = batch(shape)
    results = []
    for kind in (InputHessian, LayerwiseHessian):
        hessian = kind(model, images, labels, sampled=2)
        assert hessian.gradient.shape[0] == 2
        value = OF_A_SAMPLE[quantity](hessian, weights)
        gradients = torch.autograd.grad(value.cos().sum(), list(model.parameters()))
        results.append([value, hessian.logits, hessian.loss, *gradients])
    for expected, actual in zip(*results, strict=True):
        assert torch.allclose(actual, expected, rtol=1e-11, atol=1e-13)
    two = InputHessian(model, images[:2], labels[:2])
    assert torch.allclose(hessian.gradient, two.gradient, rtol=1e-12)
    assert torch.allclose(hessian.matvec(weights[:2]), two.matvec(weights[:2]), rtol=1e-11)
    assert torch.allclose(hessian.logits, model(images), rtol=1e-13)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_convolutions_of_every_stride_and_padding(kernel):
    shape = (2, 9, 7)
    for stride, padding in itertools.product((1, 2, 3), {0, 1, kernel}):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 3, 3, 1, 1, bias=False),
            nn.Tanh(),
            nn.Sequential(nn.Conv2d(3, 2, kernel, stride, padding), nn.Softplus(3)),
            nn.Flatten(),
        )
        features = model(torch.zeros(1, *shape)).shape[1]
        assert_same(model.append(nn.Linear(features, 4)).double(), shape)


@pytest.mark.parametrize("kernel", [2, 5])
def test_convolutions_in_groups(kernel):
    shape = (2, 9, 7)
    for stride, padding in itertools.product((1, 2), (0, 2)):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, groups=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(6, 3, kernel, stride, padding, groups=3, bias=False),
            nn.Flatten(),
        )
        features = model(torch.zeros(1, *shape)).shape[1]
        assert_same(model.append(nn.Linear(features, 4)).double(), shape)


POOLS = {
    "windows apart": nn.AvgPool2d(2),
    "windows that overlap": nn.AvgPool2d(3, 2, 1),
    "padding not counted": nn.AvgPool2d((3, 2), 2, (1, 0), count_include_pad=False),
    "a last window of less": nn.AvgPool2d(2, ceil_mode=True),
    "another divisor": nn.AvgPool2d(2, divisor_override=3),
    "adaptive": nn.AdaptiveAvgPool2d((2, 3)),
    "over everything": nn.AdaptiveAvgPool2d(1),
}


@pytest.mark.parametrize("pool", POOLS)
def test_average_pooling_of_every_kind(pool):
    shape = (1, 9, 7)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.SiLU(), POOLS[pool], nn.Tanh(), nn.Flatten())
    features = model(torch.zeros(1, *shape)).shape[1]
    assert_same(model.append(nn.Linear(features, 4)).double(), shape)


def first_layer(kind):
    """Weights of a first layer of 20 pixels and 6 outputs: in general position, or not."""
    weight = torch.randn(6, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    if kind == "dependent rows":
        weight[2:5], weight[5] = weight[1], 0
    return 1e-3 * weight if kind == "small" else weight


@pytest.mark.parametrize("kind", ["independent rows", "dependent rows", "small"])
def test_row_space_changes_no_norm_and_no_derivative(kind):
    shape = (2, 5, 2)
    model = network("mlp", ACTIVATIONS[1], shape)
    with torch.no_grad():
        model[1].weight.copy_(first_layer(kind))
    images, labels, weights = batch(shape)
    weights = weights[:, 0, 0, 0]
    parameters = list(model.parameters())
    results = []
    for row_space in (False, True):
        hessian = LayerwiseHessian(model, images, labels, row_space=row_space)
        assert hessian.gradient.shape == ((5, 6) if row_space else images.shape)
        for start, hvps in (("gradient", 1), ("softmax", 3)):
            norm = operator_norm(hessian, start=start, hvps=hvps, create_graph=True).norm
            total = norm.square() * weights + hessian.loss - vector_norm(hessian.gradient)
            gradients = torch.autograd.grad(total.sum(), parameters)
            results.append([total, norm, *gradients])
    for before, after in zip(results[:2], results[2:], strict=True):
        for expected, actual in zip(before, after, strict=True):
            # W W' is raised by eps ||W||_F^2; as large a part of H lies outside, at most
            assert (actual - expected).abs().max() <= 1e-13 * expected.abs().max()


def test_row_space_in_single_precision_with_dependent_rows():
    torch.manual_seed(0)
    model = mlp((1, 28, 28), 10, 256, nn.Tanh)
    with torch.no_grad():
        model[1].weight[100:] = model[1].weight[:1]
    images, labels = torch.rand(128, 1, 28, 28), torch.randint(10, (128,))
    norms = [
        operator_norm(
            LayerwiseHessian(model, images, labels, row_space=r), start="gradient", hvps=2
        ).norm
        for r in (False, True)
    ]
    assert torch.allclose(*norms, rtol=1e-3)


def test_row_space_where_it_does_not_pay_or_does_not_exist():
    images, labels, _ = batch((1, 4, 4))
    for model in (
        network("mlp", nn.Tanh, (1, 4, 4)).append(nn.Flatten()),  # 16 pixels, 6 outputs: it does
        network("cnn", nn.Tanh, (1, 4, 4)),
        nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 4)).double(),
    ):
        gradient = LayerwiseHessian(model, images, labels, row_space=True).gradient
        expected = (5, 6) if len(model) == 7 else images.shape
        assert gradient.shape == expected
    few = LayerwiseHessian(
        network("mlp", nn.Tanh, (1, 4, 4)), images[:2], labels[:2], row_space=True
    )
    assert few.gradient.shape == (2, 1, 4, 4)


def test_row_space_of_a_network_that_is_not_finite_is_not_finite():
    model, (images, labels, _) = network("mlp", nn.Tanh, (1, 4, 4)), batch((1, 4, 4))
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    hessian = LayerwiseHessian(model, images, labels, row_space=True)
    assert operator_norm(hessian, start="gradient", hvps=1).norm.isnan().all()


def test_pullback_is_the_transposed_jacobian():
    model, (images, labels, _) = network("cnn", nn.Tanh, (1, 8, 8)), batch((1, 8, 8))
    cotangents = torch.randn(5, 4, dtype=torch.float64)
    images.requires_grad_()
    (expected,) = torch.autograd.grad(model(images), images, cotangents)
    for kind in (InputHessian, LayerwiseHessian):
        hessian = kind(model, images.detach(), labels)
        for _ in range(2):  # nothing is used up
            assert torch.allclose(hessian.pullback(cotangents), expected, rtol=1e-12)
        assert not hessian.pullback(cotangents).requires_grad


def test_memory_is_freed_without_the_garbage_collector():
    model, (images, labels, _) = network("cnn", nn.Tanh, (1, 8, 8)), batch((1, 8, 8))
    gc.disable()
    try:
        hessian = LayerwiseHessian(model, images, labels)
        norm = operator_norm(hessian, start="gradient", hvps=2, create_graph=True).norm
        (hessian.loss + norm).mean().backward()
        logits = weakref.ref(hessian.logits)
        del hessian, norm
        assert logits() is None
    finally:
        gc.enable()


def test_a_network_without_parameters_has_derivatives_too():
    images, labels, weights = batch((1, 2, 2))
    found, expected = (
        kind(nn.Sequential(nn.Flatten(), nn.Tanh()), images, labels)
        for kind in (LayerwiseHessian, InputHessian)
    )
    assert torch.allclose(found.loss, expected.loss)
    assert torch.allclose(found.gradient, expected.gradient)
    assert torch.allclose(found.matvec(weights), expected.matvec(weights))
    product = found.matvec(weights, create_graph=True)
    assert torch.allclose(product, expected.matvec(weights))


def test_unsupported_layers_are_named():
    images, labels, _ = batch((1, 4, 4))
    for layer in (
        nn.GELU("tanh"),
        nn.SiLU(inplace=True),
        nn.BatchNorm2d(1),
        nn.Conv2d(1, 1, 3, dilation=2),
    ):
        with pytest.raises(ValueError, match=f"{type(layer).__name__}.*use InputHessian"):
            LayerwiseHessian(nn.Sequential(layer, nn.Flatten()), images, labels)
