import pytest
import torch

from input_hessian.experiment import models
from input_hessian.experiment.models import ModelFileError, load_model, save_model

SETTINGS = {
    "architecture": "cnn",
    "width": 3,
    "activation": "softplus",
    "beta": 5.0,
    "image_shape": [1, 9, 7],
    "classes": 4,
}


def test_cnn_on_mnist_has_the_documented_layers():
    model = models.build(
        **SETTINGS | {"width": 16, "image_shape": (1, 28, 28), "classes": 10, "beta": 10}
    )
    layers = {"conv1": 25 * 16 + 16, "conv2": 16 * 25 * 32 + 32}
    layers |= {"hidden": 32 * 7 * 7 * 100 + 100, "logits": 100 * 10 + 10}
    assert sum(p.numel() for p in model.parameters()) == sum(layers.values())


@pytest.mark.parametrize("architecture", ["cnn", "mlp"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 32, 32), (2, 9, 7)])
def test_any_image_shape_gives_logits_image_by_image(architecture, shape):
    model = models.build(**SETTINGS | {"architecture": architecture, "image_shape": shape})
    images = torch.rand(5, *shape)
    assert model(images).shape == (5, 4)
    assert torch.allclose(model(images)[2], model(images[2:3])[0], atol=1e-6)


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


@pytest.mark.parametrize("change", [{"architecture": "resnet"}, {"activation": "gelu"}])
def test_unknown_parts_are_named(change):
    with pytest.raises(ValueError, match=r"expected (one of|softplus or relu)"):
        models.build(**SETTINGS | change)


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


def test_unreadable_model_files_are_explained(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(ModelFileError, match="delete it and run snakemake again"):
        load_model(path)
    save_model(models.build(**SETTINGS), SETTINGS, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelFileError, match="expected a model written by this pipeline"):
        load_model(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ModelFileError):
        load_model(path)
