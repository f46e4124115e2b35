"""The positive control of the masking checks."""

import mask_gradients
import pytest
import torch
import torch.nn.functional as F

from input_hessian.experiment.models import build, load_model, read_settings, save_model

# Its last layer is not a linear one, and has no bias.
OWN = """
from torch import nn

def build(image_shape, classes):
    return nn.Sequential(nn.Conv2d(image_shape[0], classes, image_shape[1:], bias=False), nn.Flatten())
"""


@pytest.mark.parametrize("architecture", ["cnn", "mlp", "own.py"])
def test_the_predictions_stay_and_the_gradients_vanish(tmp_path, monkeypatch, architecture):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    settings = {"architecture": architecture, "image_shape": [3, 6, 5], "classes": 4}
    torch.manual_seed(0)
    save_model(build(**settings), settings, tmp_path / "model.safetensors", "diverged")
    mask_gradients.main(tmp_path / "model.safetensors", masked=tmp_path / "masked.safetensors")

    model, _ = load_model(tmp_path / "model.safetensors")
    masked, _ = load_model(tmp_path / "masked.safetensors")
    assert read_settings(tmp_path / "masked.safetensors") == (settings, "diverged")
    images = 10 * torch.randn(20, 3, 6, 5)  # logits far apart, as after training
    images.requires_grad_()
    logits = model(images)
    torch.testing.assert_close(masked(images) / 1e4, logits, rtol=0, atol=1e-5)
    # Where the margin of the prediction is above 0.02, that of the control is above 200: in float32,
    # exp(-200) is 0, and so is all that an attack on the loss sees.
    first, second = logits.topk(2).values.unbind(1)
    sure = first - second > 0.02
    assert sure.sum() > 10
    loss = F.cross_entropy(masked(images), logits.argmax(1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    assert gradient[sure].abs().max() == 0
