"""Networks that were trained elsewhere: what fits is read as it is, what does not is explained."""

import copy
import importlib.util
from pathlib import Path

import import_network
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from input_hessian import derivatives
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
        ({"architecture": "nothing.py"}, "architecture: nothing.py: no such file"),
        ({"architecture": "nothing"}, "architecture: expected one of cnn, mlp"),
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


# ---- exported programs ----------------------------------------------------------------------------


class Attending(nn.Module):
    """Draws random numbers where no argument of the graph is called training."""

    def forward(self, images):
        rows = images.flatten(1).unflatten(1, (4, 4))
        dropped = nn.functional.scaled_dot_product_attention(rows, rows, rows, dropout_p=0.5)
        return nn.functional.pad(dropped[:, 0], (0, 1))


class Casting(nn.Module):
    def forward(self, images):
        return nn.functional.pad(images.float().flatten(1)[:, :4], (0, 1))


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(16, 5), nn.GroupNorm(1, 1)
        self.register_buffer("mean", torch.tensor(0.3))

    def forward(self, images):
        normed = self.norm(images - self.mean)
        return self.linear(nn.functional.dropout(normed.flatten(1), training=self.training))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The network, and the folder with it exported in both modes and for batches of 4 alone."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    images = torch.rand(4, 1, 4, 4)
    any_batch = ({0: torch.export.Dim.DYNAMIC},)
    model = Dropping()
    trained = torch.export.export(model, (images,), dynamic_shapes=any_batch)
    torch.export.save(trained, folder / "training.pt2")
    model.eval()
    torch.export.save(torch.export.export(model, (images,)), folder / "four.pt2")
    program = torch.export.export(model, (images,), dynamic_shapes=any_batch)
    torch.export.save(program, folder / "mine.pt2")
    for name, other in (("random", Attending()), ("cast", Casting())):
        other = torch.export.export(other.eval(), (images,), dynamic_shapes=any_batch)
        torch.export.save(other, folder / f"{name}.pt2")
    (folder / "text.pt2").write_text("no program")
    return model, folder


def test_exported_program_is_the_network_with_all_its_derivatives(exported, monkeypatch):
    original, folder = exported
    monkeypatch.chdir(folder)
    model = load_checkpoint("mine.pt2", **SHAPE)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    save_model(model, {"architecture": "mine.pt2", **SHAPE}, "model.safetensors")
    images, labels = torch.rand(7, 1, 4, 4, dtype=torch.float64), torch.arange(7) % 5
    v = torch.randn_like(images)
    right = derivatives(copy.deepcopy(original).double(), images, labels)
    for network in (model, load_model("model.safetensors")[0]):
        assert torch.equal(network(images.float()), original(images.float()))
        found = derivatives(network.double(), images, labels)
        torch.testing.assert_close(found.gradient, right.gradient)
        torch.testing.assert_close(found.matvec(v), right.matvec(v))
    assert import_network.code_files("mine.pt2") == [Path("mine.pt2")]


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("nowhere.pt2", {}, "nowhere.pt2: no such file"),
        ("text.pt2", {}, "text.pt2: expected a program that torch.export.save wrote"),
        ("training.pt2", {}, r"exported in training mode \(dropout\); export it after model.eval"),
        ("four.pt2", {}, "cannot evaluate images of shape .1, 1, 4, 4.: .*size.*4"),
        ("random.pt2", {}, "gives other logits at a second evaluation; export it after model.eval"),
        ("cast.pt2", {}, "can also be evaluated in float64, .* look for a dtype"),
        (
            "mine.pt",
            {"architecture": "mine.pt2"},
            "architecture: expected none for an exported pro",
        ),
        ("mine.pt2", {"architecture": "mlp"}, "architecture: expected none for an exported pro"),
        ("mine.pt2", {"options": {"width": 3}}, "'width'; mine.pt2 takes no options"),
        ("mine.pt2", {"image_shape": [1, 8, 8]}, "cannot evaluate images of shape"),
        ("mine.pt2", {"classes": 6}, "model: expected 6 logits, one per class, got 5"),
        ("mine.pt", {}, r"expected what makes the network of mine.pt, .* \(\*.pt2\) needs none"),
    ],
)
def test_what_is_wrong_with_an_exported_program_is_one_sentence(
    exported, monkeypatch, caplog, name, more, message
):
    monkeypatch.chdir(exported[1])
    with pytest.raises(UserError, match=message):
        load_checkpoint(name, **SHAPE | more)
    assert not caplog.records
