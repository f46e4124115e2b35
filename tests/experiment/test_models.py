"""Networks, and the files that hold them."""

import json

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import seeded
from helpers.oracles import assembled, assert_close, true_derivatives
from safetensors import safe_open
from safetensors.torch import save_file

from input_hessian import Estimator, HessianPenalty, InputHessian
from input_hessian.experiment import models
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.models import ModelFileError, load_model, read_settings, save_model

SETTINGS = {
    "architecture": "cnn",
    "width": 3,
    "activation": "softplus",
    "beta": 5.0,
    "image_shape": [1, 9, 7],
    "classes": 4,
}
RESNET = SETTINGS | {"architecture": "resnet", "width": 4, "depth": 1, "groups": 2}


def test_cnn_on_mnist_has_the_documented_layers():
    model = models.build(
        **SETTINGS | {"width": 16, "image_shape": (1, 28, 28), "classes": 10, "beta": 10}
    )
    layers = {"conv1": 25 * 16 + 16, "conv2": 16 * 25 * 32 + 32}
    layers |= {"hidden": 32 * 7 * 7 * 100 + 100, "logits": 100 * 10 + 10}
    assert sum(p.numel() for p in model.parameters()) == sum(layers.values())


@pytest.mark.parametrize("settings", [SETTINGS, SETTINGS | {"architecture": "mlp"}, RESNET])
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 32, 32), (2, 9, 7)])
def test_any_image_shape_gives_logits_image_by_image(settings, shape):
    model = models.build(**settings | {"image_shape": shape})
    images = torch.rand(5, *shape)
    assert model(images).shape == (5, 4)
    assert torch.allclose(model(images)[2], model(images[2:3])[0], atol=1e-6)


def test_resnet_has_the_documented_layers():
    sizes = {"image_shape": (3, 32, 32), "classes": 10, "width": 16, "depth": 2, "groups": 8}
    model = models.build(**RESNET | sizes)
    layers = {"first": 3 * 9 * 16 + 16, "logits": 64 * 8 * 8 * 10 + 10, "norm": 2 * 64}
    for before, channels in ((16, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64)):
        layers[before, channels, len(layers)] = 9 * channels * (before + channels)
        layers["norms", len(layers)] = 2 * (before + channels)
        if before != channels:
            layers["shortcut", len(layers)] = before * channels + channels
    assert sum(p.numel() for p in model.parameters()) == sum(layers.values())


def test_resnet_is_the_same_network_under_the_same_seed():
    networks = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        networks.append(torch.cat([p.flatten() for p in models.build(**RESNET).parameters()]))
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


@pytest.fixture
def problem():
    """Return a ResNet in float64, and two images with their labels."""
    torch.manual_seed(0)
    shape = (3, 5, 6)
    model = models.build(**RESNET | {"image_shape": shape}).double()
    return model, torch.rand(2, *shape, dtype=torch.float64), torch.tensor([1, 3])


def test_derivatives_of_the_resnet_are_those_of_the_explicit_hessian(problem):
    model, images, labels = problem
    gradients, hessians = true_derivatives(model, images, labels)
    hessian = InputHessian(model, images, labels)
    assert_close(hessian.gradient.detach().flatten(1), gradients, 1e-10)
    assert_close(assembled(hessian.matvec, images), hessians, 1e-10)
    assert hessians.abs().amax((1, 2)).min() > 1e-3


def test_the_resnet_has_a_second_derivative_everywhere_on_a_path(problem):
    """The gradient's difference quotients along a path tend to H v, at no point do they jump."""
    model, images, labels = problem
    direction = F.normalize(torch.randn(2, 90, generator=seeded(1)).double()).view_as(images)
    for step in torch.linspace(0, 1, 11).tolist():
        hessian = InputHessian(model, images + step * direction, labels)
        assert_close(hessian.difference(1e-5)(direction), hessian.matvec(direction), 1e-3)


def test_the_resnet_trains_under_the_hessian_penalty():
    torch.manual_seed(0)
    model = models.build(**RESNET | {"image_shape": (3, 8, 8), "classes": 2})
    labels = torch.arange(32) % 2
    images = torch.rand(32, 3, 8, 8)
    images[labels == 1, :, :4] *= 0.3
    images[labels == 0, :, 4:] *= 0.3
    estimator = Estimator(method="lanczos", start="gradient", hvps=4)
    penalty = HessianPenalty(lam=0.1, fraction=0.25, estimator=estimator)
    optimizer, losses, generator = torch.optim.Adam(model.parameters(), 0.01), [], seeded(0)
    for _ in range(8):
        objective = penalty(model, images, labels, generator)
        assert (objective.penalty > 0).sum() == 8
        losses.append(objective.loss.mean().item())
        optimizer.zero_grad()
        (objective.loss + objective.penalty).mean().backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_activation_and_beta_reach_the_network():
    images = torch.rand(4, 1, 9, 7)
    outputs = []
    for change in ({}, {"beta": 1.0}, {"activation": "relu"}):
        torch.manual_seed(0)
        outputs.append(models.build(**SETTINGS | change)(images))
    assert not torch.allclose(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    torch.manual_seed(0)  # softplus(beta) tends to relu as beta grows
    sharp = models.build(**SETTINGS | {"beta": 1e5})(images)
    assert torch.allclose(sharp, outputs[2], atol=1e-4)


OWN = """
from torch import nn

def build(image_shape, classes, *, bias, features=2):
    channels, height, width = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes, bias))
"""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "vgg"}, ["expected one of cnn, mlp, resnet", "'vgg'"]),
        (RESNET | {"groups": 3}, ["groups", "divisor of the width, 4", "got 3"]),
        ({"activation": "gelu"}, ["activation", "softplus or relu", "'gelu'"]),
        ({"beta": 0.0}, ["beta", "above 0", "0.0"]),
        ({"widht": 3}, ["model", "'widht'", "cnn", "width, activation, beta"]),
        ({"architecture": "own.py", "features": 3}, ["model", "'bias'", "own.py"]),
        ({"architecture": "empty.py"}, ["architecture", "function build", "empty.py"]),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, monkeypatch, change, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "empty.py").write_text("")
    settings = SETTINGS | change
    if settings["architecture"] == "own.py":
        settings = {key: settings[key] for key in ("architecture", "image_shape", "classes")}
    with pytest.raises(UserError) as error:
        models.build(**settings)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_architecture_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    settings = {"architecture": "own.py", "image_shape": [3, 4, 5], "classes": 6, "bias": False}
    model = models.build(**settings)
    assert [tuple(p.shape) for p in model.parameters()] == [(6, 60)]
    save_model(model, settings, tmp_path / "model.safetensors")
    loaded, _ = load_model(tmp_path / "model.safetensors")
    images = torch.rand(2, 3, 4, 5)
    assert torch.equal(loaded(images), model(images))


def test_saved_model_comes_back_whole_and_bytes_repeat(tmp_path):
    model = models.build(**SETTINGS)
    save_model(model, SETTINGS, tmp_path / "a.safetensors")
    save_model(model, SETTINGS, tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded, status = load_model(tmp_path / "a.safetensors")
    assert status == "finished"
    save_model(model, SETTINGS, tmp_path / "b.safetensors", status="diverged")
    assert load_model(tmp_path / "b.safetensors")[1] == "diverged"
    images = torch.rand(3, 1, 9, 7)
    assert torch.equal(loaded(images), model(images))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_file_holds_parameters_settings_and_status(tmp_path):
    """Trained networks are kept for long: what is written today must be readable later."""
    path = tmp_path / "model.safetensors"
    save_model(models.build(**SETTINGS), SETTINGS, path, status="diverged")
    assert read_settings(path) == (SETTINGS, "diverged")
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["model"]) == SETTINGS | {"status": "diverged"}
        shapes = {name: tuple(file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118
    assert shapes == {
        **{"0.weight": (3, 1, 5, 5), "0.bias": (3,), "2.weight": (6, 3, 5, 5), "2.bias": (6,)},
        **{"5.weight": (100, 36), "5.bias": (100,), "7.weight": (4, 100), "7.bias": (4,)},
    }


def test_a_finished_model_has_finite_parameters(tmp_path):
    path, network = tmp_path / "model.safetensors", models.build(**SETTINGS)
    with torch.no_grad():
        network[0].bias[1] = torch.nan
    save_model(network, SETTINGS, path)
    with pytest.raises(ModelFileError, match="expected finite parameters"):
        load_model(path)
    save_model(network, SETTINGS, path, status="diverged")
    assert load_model(path)[1] == "diverged"


def test_unreadable_model_files_are_explained(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ModelFileError, match="no such file; run snakemake to make it"):
        load_model(path)
    save_model(models.build(**SETTINGS), SETTINGS, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(
        ModelFileError, match=r"load_check.*; if the pipeline wrote it, it is damaged: delete it"
    ):
        load_model(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ModelFileError):
        load_model(path)


def test_nobody_is_told_to_delete_a_model_of_his_own(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(models.build(**SETTINGS).state_dict(), path)
    with pytest.raises(
        ModelFileError, match="a network of your own needs its architecture: --architecture"
    ) as e:
        load_model(path)
    assert "delete it" not in str(e.value)


def test_layers_may_share_a_parameter(tmp_path):
    model = models.build(**SETTINGS)
    model.append(model[-1])
    save_model(model, SETTINGS, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert torch.equal(file.get_tensor("7.weight"), file.get_tensor("8.weight"))
