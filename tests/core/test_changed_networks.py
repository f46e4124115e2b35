"""The fast passes are taken only for what they know; whatever else changes a network is obeyed."""

import contextlib
import warnings

import pytest
import torch
import torch.nn.functional as F
import torch.nn.modules.module as global_hooks
from helpers.networks import CLASSES, batch_of, network, seeded
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from input_hessian import InputHessian, LayerwiseHessian, certified_radius, derivatives
from input_hessian.certificate import curvature_bound
from input_hessian.input_gradient import with_cheap_input_gradient
from input_hessian.layerwise import UnsupportedLayerError
from input_hessian.vectors import vector_norm

SHAPE = (1, 5, 5)


def convolutional(**options):
    options = {"stride": 2, "padding": 1} | options
    convolution = nn.Conv2d(1, 3, 3, **options)
    features = convolution(torch.zeros(1, *SHAPE)).numel()
    layers = [convolution, nn.Tanh(), nn.Flatten(), nn.Linear(features, 6), nn.Softplus(2)]
    return nn.Sequential(*layers, nn.Linear(6, CLASSES)).double()


def oracle(model, images, labels, v, u, w):
    """Loss, gradient and ``H v`` by plain double backpropagation, and their sum's derivatives."""
    images = images.clone().requires_grad_()
    loss = F.cross_entropy(model(images), labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), images, create_graph=True)
    (product,) = torch.autograd.grad((gradient * v).sum(), images, create_graph=True)
    return loss, gradient, product, parameter_gradients(model, loss, gradient, product, u, w)


def parameter_gradients(model, loss, gradient, product, u, w):
    total = (loss * w).sum() + (gradient.square() * u).sum() + (product * u).sum()
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(total, parameters, materialize_grads=True)


class Tripled(nn.Sequential):
    def forward(self, images):
        return super().forward(3 * images)


class TripledCall(nn.Sequential):
    def __call__(self, images):
        return super().__call__(3 * images)


class TripledLinear(nn.Linear):
    def forward(self, features):
        return super().forward(3 * features)


class TripledConvolution(nn.Conv2d):
    def _conv_forward(self, images, weight, bias):
        return super()._conv_forward(3 * images, weight, bias)


class SteepSoftplus(nn.Softplus):
    def forward(self, features):
        return super().forward(3 * features)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def become(index, kind):
    def change(model, handles):
        (model if index is None else model[index]).__class__ = kind

    return change


def assign(index, name, value):
    """Set an attribute of a layer, or of the network."""

    def change(model, handles):
        module = model if index is None else model[index]
        setattr(module, name, value(module) if callable(value) else value)

    return change


def tripled(module):
    return lambda features: type(module).forward(module, 3 * features)


def hook(index, register, function):
    def change(model, handles):
        module = model if index is None else model[index]
        handles.append(getattr(module, register)(function))

    return change


def everywhere(register, function):
    def change(model, handles):
        only = lambda module, *rest: function(module, *rest) if module is model[3] else None  # noqa: E731
        handles.append(getattr(global_hooks, register)(only))

    return change


def apply(function, index, *args, **options):
    def change(model, handles):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PyTorch's older normalisations
            function(model[index], *args, **options)

    return change


def replace(index, build):
    def change(model, handles):
        model[index] = build(model[index]).double()

    return change


def wrap(build):
    return lambda model, handles: build(model)


def with_spectral_norm(model, handles):
    apply(spectral_norm, 3)(model, handles)
    model.eval()  # in training every forward pass changes the weight


def as_attribute(model, handles):
    weight = model[3].weight.detach() * 3
    del model[3].weight
    model[3].weight = weight


def as_buffer(model, handles):
    weight = model[3].weight.detach() * 3
    del model[3].weight
    model[3].register_buffer("weight", weight)


def wider_bias(model, handles):
    model[3].bias = nn.Parameter(torch.ones(1, dtype=torch.float64))


def pruned_for_good(model, handles):
    prune.l1_unstructured(model[3], "weight", 0.5)
    prune.remove(model[3], "weight")


def used_twice(model, handles):
    again = nn.Linear(6, 6).double()
    model.insert(5, again)
    model.insert(6, model[4])
    model.insert(7, again)
    model.insert(8, nn.Tanh())


def tied(model, handles):
    used_twice(model, handles)
    model[7] = nn.Linear(6, 6).double()
    model[7].weight = model[5].weight


def frozen(*names):
    def change(model, handles):
        for name in names:
            model.get_parameter(name).requires_grad_(False)

    return change


def doubled_output(module, inputs, output):
    return 2 * output


def doubled_input(module, inputs):
    return (2 * inputs[0],)


def doubled_gradient(module, *gradients):
    return (2 * gradients[0][0],)


# Each gets the network and may append hooks to remove; what it returns, if anything, is the network.
UNKNOWN = {
    "subclass of Sequential": become(None, Tripled),
    "subclass with __call__": become(None, TripledCall),
    "subclass of Linear": become(3, TripledLinear),
    "subclass of Conv2d": become(0, TripledConvolution),
    "subclass of Softplus": become(4, SteepSoftplus),
    "forward of the network": assign(None, "forward", tripled),
    "forward of a layer": assign(3, "forward", tripled),
    "forward of an activation": assign(1, "forward", tripled),
    "_conv_forward": assign(
        0, "_conv_forward", lambda m: lambda h, w, b: F.conv2d(2 * h, w, b, 2, 1)
    ),
    "_call_impl": assign(None, "_call_impl", tripled),
    "compiled in place": assign(None, "_compiled_call_impl", tripled),
    "forward hook": hook(3, "register_forward_hook", doubled_output),
    "forward hook of the network": hook(None, "register_forward_hook", doubled_output),
    "forward pre-hook": hook(0, "register_forward_pre_hook", doubled_input),
    "backward hook": hook(3, "register_full_backward_hook", doubled_gradient),
    "backward pre-hook": hook(3, "register_full_backward_pre_hook", doubled_gradient),
    "global forward hook": everywhere("register_module_forward_hook", doubled_output),
    "global forward pre-hook": everywhere("register_module_forward_pre_hook", doubled_input),
    "global backward hook": everywhere("register_module_full_backward_hook", doubled_gradient),
    "global backward pre-hook": everywhere(
        "register_module_full_backward_pre_hook", doubled_gradient
    ),
    "parametrization": apply(parametrize.register_parametrization, 3, "weight", Doubled()),
    "parametrized convolution": apply(parametrize.register_parametrization, 0, "weight", Doubled()),
    "weight_norm": apply(weight_norm, 3),
    "weight_norm, parametrized": apply(parametrizations.weight_norm, 0),
    "spectral_norm": with_spectral_norm,
    "pruning": apply(prune.l1_unstructured, 3, "weight", 0.5),
    "weight as an attribute": as_attribute,
    "weight as a buffer": as_buffer,
    "one bias for all": wider_bias,
    "threshold of softplus": assign(4, "threshold", 0.5),
    "beta of softplus as a tensor": assign(4, "beta", torch.tensor(5.0)),
    "no flattening": replace(2, lambda flatten: nn.Flatten(1, 3)),
    "ReLU in place": replace(4, lambda softplus: nn.ReLU(inplace=True)),
    "dilation": wrap(lambda model: convolutional(dilation=2)),
    "padding mode": wrap(lambda model: convolutional(padding_mode="circular")),
    "unequal strides": wrap(lambda model: convolutional(stride=(1, 2))),
    "unequal padding": wrap(lambda model: convolutional(padding=(1, 0))),
    "named padding": wrap(lambda model: convolutional(padding="same", stride=1)),
    "stride set to a number": assign(0, "stride", 2),
    "rows": wrap(
        lambda model: nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(15, 4))
    ),
    "DataParallel": wrap(nn.DataParallel),
}
KNOWN = {
    "nothing": lambda model, handles: None,
    "beta of softplus": assign(4, "beta", 5.0),
    "data of a weight": apply(lambda module: module.weight.data.mul_(3), 3),
    "another stride": assign(0, "stride", (2, 2)),
    "an attribute of no meaning": assign(None, "title", "a network"),
    "pruning made permanent": pruned_for_good,
    "a module twice": used_twice,
    "tied weights": tied,
    "a frozen layer": frozen("0.weight", "0.bias"),
    "a frozen weight": frozen("3.weight"),
    "a frozen bias": frozen("5.bias"),
    "all but the first weight frozen": frozen("0.bias", "3.weight", "3.bias", "5.weight", "5.bias"),
    "no bias": assign(3, "bias", None),
    "channels last": lambda model, handles: model.to(memory_format=torch.channels_last),
    "evaluation mode": lambda model, handles: model.eval(),
}


@contextlib.contextmanager
def changed(change):
    """A network that has been used, and so checked, before it changes."""
    torch.manual_seed(0)
    model, handles = convolutional(), []
    derivatives(model, *batch_of(3, SHAPE))
    model = change(model, handles) or model
    model = model.double()
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", [*UNKNOWN, *KNOWN])
def test_a_changed_network_has_the_derivatives_of_autograd(name):
    images, labels = batch_of(3, SHAPE)
    generator = seeded(2)
    v, u = (torch.randn(images.shape, dtype=torch.float64, generator=generator) for _ in range(2))
    w = torch.randn(3, dtype=torch.float64, generator=generator)
    with changed((UNKNOWN | KNOWN)[name]) as model:
        expected = oracle(model, images, labels, v, u, w)
        hessian = derivatives(model, images, labels)
        product = hessian.matvec(v, create_graph=True)
        found = hessian.loss, hessian.gradient, product
        found = *found, parameter_gradients(model, *found, u, w)
        for right, value in zip(
            (*expected[:3], *expected[3]), (*found[:3], *found[3]), strict=True
        ):
            assert torch.allclose(value, right, rtol=1e-9, atol=1e-12)
        assert isinstance(hessian, InputHessian if name in UNKNOWN else LayerwiseHessian)
        in_rows = derivatives(model, images, labels, row_space=True)
        assert torch.allclose(vector_norm(in_rows.gradient), vector_norm(expected[1]), rtol=1e-9)

        if name in UNKNOWN:
            with pytest.raises(UnsupportedLayerError, match="use InputHessian"):
                LayerwiseHessian(model, images, labels)
        for parameters in ("as they are", "frozen"):
            if parameters == "frozen":
                model.requires_grad_(False)
            attacked = images.clone().requires_grad_()
            loss = F.cross_entropy(with_cheap_input_gradient(model)(attacked), labels)
            (gradient,) = torch.autograd.grad(loss, attacked)
            assert torch.allclose(3 * gradient, expected[1], rtol=1e-9, atol=1e-12)


OF_CONVOLUTIONS = {
    "subclass of Conv2d",
    "_conv_forward",
    "stride set to a number",
    "parametrized convolution",
    "weight_norm, parametrized",
}


@pytest.mark.parametrize("name", [name for name in UNKNOWN if name not in OF_CONVOLUTIONS])
def test_no_certificate_for_a_changed_network(name):
    """Layer 3 is a Linear and layer 4 a Softplus here too."""
    layers = [nn.Linear(25, 6), nn.Softplus(2), nn.Linear(6, 6), nn.Softplus(2)]
    model, handles = nn.Sequential(nn.Flatten(), *layers, nn.Linear(6, CLASSES)).double(), []
    assert (curvature_bound(model) >= 0).all()
    try:
        model = UNKNOWN[name](model, handles) or model
        with pytest.raises(ValueError, match="certificate: expected fully connected layers"):
            certified_radius(model, *batch_of(2, SHAPE))
    finally:
        for handle in handles:
            handle.remove()


def test_no_certificate_where_softplus_is_concave():
    model = nn.Sequential(nn.Linear(4, 3), nn.Softplus(-1), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"with softplus between them .* Softplus\(beta=-1"):
        curvature_bound(model)


def test_networks_without_layers_or_with_images_of_one_dimension():
    images, labels = torch.rand(3, CLASSES).double(), torch.tensor([0, 1, 2])
    hessian = derivatives(nn.Sequential(), images, labels)
    assert isinstance(hessian, InputHessian)
    p = images.softmax(1)
    assert torch.allclose(hessian.gradient, p - F.one_hot(labels, CLASSES), rtol=1e-12)
    flat = derivatives(nn.Sequential(nn.Flatten(), nn.Flatten()), images, labels, row_space=True)
    assert torch.allclose(flat.gradient, hessian.gradient, rtol=1e-12)


def test_rows_do_not_pass_for_images_in_row_space():
    """``Linear`` on ``[B, 1, n]`` gives ``[B, 1, K]``, which are no logits, in every basis."""
    model, labels = nn.Sequential(nn.Linear(20, 4)), torch.zeros(30, dtype=torch.long)
    for row_space in (False, True):
        with pytest.raises(ValueError, match="expected logits of two classes"):
            derivatives(model, torch.rand(30, 1, 20), labels, row_space=row_space)


@pytest.mark.parametrize("used_before", [False, True])
def test_a_class_changed_everywhere_is_found_by_autograd(used_before, monkeypatch):
    """What no module shows: the self-check compares with autograd."""
    torch.manual_seed(0)
    model, (images, labels) = convolutional(), batch_of(3, SHAPE)
    if used_before:
        derivatives(model, images, labels)
    monkeypatch.setattr(nn.Tanh, "forward", lambda self, h: torch.tanh(3 * h))
    with pytest.raises(ValueError, match=r"image gradients .* differ from autograd's by"):
        derivatives(model, images, labels)
    monkeypatch.undo()
    monkeypatch.setattr(nn.Sequential, "forward", lambda self, h: self[5](self[4](self[3](
        self[2](self[1](self[0](3 * h)))))))  # fmt: skip
    with pytest.raises(ValueError, match=r"logits .* differ from autograd's"):
        derivatives(model, images, labels)


def test_the_self_check_is_paid_once_for_every_structure(monkeypatch):
    checks, grad = [], torch.autograd.grad

    def counted(outputs, images):
        checks.append(len(images))
        return grad(outputs, images)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    model, (images, labels) = convolutional(), batch_of(3, SHAPE)
    for _ in range(3):
        derivatives(model, images, labels)
        with torch.no_grad():
            model[0].weight.mul_(0.9)
    assert checks == [2]
    model.append(nn.Tanh())
    for _ in range(3):
        derivatives(model, images, labels)
    assert checks == [2, 2]


@pytest.mark.parametrize("scale", [1e-6, 1e3, torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_self_check_raises_no_false_alarm(scale, dtype):
    for architecture in ("mlp", "cnn"):
        for activation in ("softplus", "tanh", "relu"):
            model = network(architecture, activation, (1, 8, 8), dtype)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(scale)
            LayerwiseHessian(model, *batch_of(3, (1, 8, 8), dtype))


@pytest.mark.parametrize("changed", ["images", "weight"])
@pytest.mark.parametrize("use", ["matvec", "backward"])
def test_values_changed_in_place_after_the_evaluation_are_refused_as_by_autograd(changed, use):
    for kind in (InputHessian, LayerwiseHessian):
        model, (images, labels) = convolutional(), batch_of(3, SHAPE)
        hessian = kind(model, images, labels)
        direction = torch.ones_like(images)
        with torch.no_grad():
            (images if changed == "images" else model[3].weight).mul_(2)
        with pytest.raises(RuntimeError, match=r"in place|inplace"):
            hessian.matvec(direction) if use == "matvec" else hessian.loss.sum().backward()


def test_the_cheap_gradient_follows_the_convolution():
    """New weights, images of two sizes, and modes of layers that must not change."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2), nn.Dropout(0.5).eval(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    ).requires_grad_(False)
    cheap = with_cheap_input_gradient(model.double())
    assert type(cheap[0]) is not nn.Conv2d
    assert (cheap.training, model[1].training) == (True, False)
    model[0].weight.mul_(3)
    first, second = (torch.rand(3, 1, n, n).double().requires_grad_() for n in (8, 12))
    loss = cheap(first).square().sum()
    cheap(second).square().sum().backward()
    loss.backward()
    for images in (first, second):
        again = images.detach().requires_grad_()
        model(again).square().sum().backward()
        assert torch.allclose(images.grad, again.grad, rtol=1e-10)
