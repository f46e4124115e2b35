"""Networks that were trained elsewhere: what fits is read as it is, what does not is explained."""

import importlib.util

import import_network
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from input_hessian.experiment.checkpoints import load_checkpoint
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.models import load_model, save_model

SHAPE = {"image_shape": [1, 4, 4], "classes": 5}
OWN = """
import torch
from torch import nn

def build(image_shape, classes, *, units=8, end="logits"):
    ends = {"softmax": [nn.Softmax(1)], "none": [nn.Flatten(0)], "logits": []}[end]
    return nn.Sequential(nn.Flatten(), nn.Linear(16, units), nn.Tanh(), nn.Linear(units, 5), *ends)
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "list.py").write_text("def build(image_shape, classes):\n    return [1]\n")
    (tmp_path / "broken.py").write_text("def build(image_shape, classes):\n    return 1 / 0\n")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5))
    torch.save(model.state_dict(), "mine.pt")
    save_file(model.state_dict(), "mine.safetensors")
    return model


def test_both_kinds_of_file_give_the_network_back(trained):
    images = torch.rand(3, 1, 4, 4)
    for path in ("mine.pt", "mine.safetensors"):
        model = load_checkpoint(path, architecture="own.py", **SHAPE)
        assert torch.equal(model(images), trained(images))
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_function_of_a_package_gets_the_options_alone(trained):
    linear = nn.Linear(4, 5)
    torch.save(linear.state_dict(), "linear.pt")
    shape = {"image_shape": [4], "classes": 5}
    options = {"in_features": 4, "out_features": 5}
    made = {"architecture": "torch.nn:Linear", **shape}
    model = load_checkpoint("linear.pt", **made, options=options)
    save_model(model, made | options, "model.safetensors")
    images = torch.rand(3, 4)
    assert torch.equal(load_model("model.safetensors")[0](images), linear(images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "nowhere.pt"}, "nowhere.pt: no such file; expected a checkpoint"),
        ({"path": "own.py"}, "own.py: expected a state dict, written by safetensors or by"),
        ({"path": "whole.pt"}, "got a dict with the keys model, epoch; save the part that is one"),
        ({"path": "parallel.pt"}, r"missing: 1.weight.*take 'module\.' off the names"),
        ({"path": "nan.pt"}, "expected finite logits"),
        ({"architecture": "mlp"}, "expected the parameters of mlp; missing: "),
        ({"architecture": "nothing.py"}, "architecture: expected one of cnn, mlp"),
        (
            {"architecture": "torch.nn:Lineer"},
            "package.module:function .*'torch.nn:Lineer'.*Lineer",
        ),
        ({"architecture": "nowhere:build"}, "package.module:function .*No module named 'nowhere'"),
        ({"architecture": "list.py"}, "expected list.py to make a torch.nn.Module, got a list"),
        ({"architecture": "broken.py"}, "broken.py makes no network: ZeroDivisionError"),
        ({"options": {"width": 3}}, "model: .*'width'; own.py takes the options units, end"),
        ({"options": {"classes": 5}}, "options: classes: expected other names"),
        (
            {"options": {"units": 9}},
            r"mine.pt: expected 1.weight of shape \(9, 16\).*got \(8, 16\)",
        ),
        ({"options": {"end": "softmax"}}, "model: expected logits, got probabilities"),
        ({"options": {"end": "none"}}, "model: expected logits of two classes or more"),
        ({"image_shape": [1, 8, 8]}, r"cannot evaluate images of shape \(4, 1, 8, 8\)"),
        ({"classes": 6}, "model: expected 6 logits, one per class, got 5"),
    ],
)
def test_what_does_not_fit_is_one_sentence(trained, change, message):
    state = trained.state_dict()
    torch.save({"model": state, "epoch": 3}, "whole.pt")
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, "parallel.pt")
    torch.save(state | {"3.bias": torch.full((5,), torch.nan)}, "nan.pt")
    given = {"path": "mine.pt", "architecture": "own.py", **SHAPE} | change
    with pytest.raises(UserError, match=message):
        load_checkpoint(**given)


def test_code_of_a_network_is_that_of_its_file_or_module(trained):
    (path,) = import_network.code_files("own.py")
    assert path.name == "own.py"
    (path,) = import_network.code_files("torch.nn:Linear")
    assert str(path) == importlib.util.find_spec("torch.nn").origin
