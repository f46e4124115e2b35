"""Penalties, models and data sets by name, and from files of the user's own."""

import pytest
import torch

from input_hessian import HessianPenalty
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.penalty import build_penalty
from input_hessian.experiment.plugins import load_plugin, plugin_file

OWN = '''
from dataclasses import dataclass
import torch.nn.functional as F
from input_hessian import Objective, Penalty

@dataclass(frozen=True)
class LogitScale(Penalty):
    """``ell + lam mean |z|^power``."""

    power: int = 2

    def __call__(self, model, images, labels, generator):
        logits = model(images)
        loss = F.cross_entropy(logits, labels, reduction="none")
        return Objective(loss, self.lam * logits.abs().pow(self.power).mean(1), logits)
'''


def test_a_name_is_a_file_of_the_package():
    assert plugin_file("penalty", "hessian").name == "hessian.py"
    assert load_plugin("architecture", "cnn").build
    penalty = build_penalty("hessian", lam=1, estimator={"method": "lanczos", "hvps": 3})
    assert isinstance(penalty, HessianPenalty)
    assert penalty.estimator.method == "lanczos"
    assert penalty.estimator.start == "softmax"


def test_a_path_is_a_file_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert plugin_file("penalty", "own.py").samefile(tmp_path / "own.py")
    penalty = build_penalty("own.py", lam=0.5, power=1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 2])
    objective = penalty(model, images, labels, torch.Generator())
    torch.testing.assert_close(objective.penalty, 0.5 * model(images).abs().mean(1))


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("penalty", "hesian", ["penalty", "hessian", "'hesian'"]),
        ("architecture", "../cnn", ["architecture", "cnn, mlp, resnet", "'../cnn'"]),
        ("dataset", "gone.py", ["dataset", "gone.py: no such file"]),
        ("dataset", "_idx", ["dataset", "'_idx'"]),
        ("penalty", "__init__", ["penalty", "'__init__'"]),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(kind, name, words):
    with pytest.raises(UserError) as error:
        plugin_file(kind, name)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["lam", "required"]),
        ({"lam": "1e-3"}, ["lam", "number"]),
        ({"lam": True}, ["lam", "number"]),
        ({"lam": -1}, ["lam", "at least 0", "-1"]),
        ({"lam": 1, "sqared": True}, ["sqared"]),
        ({"lam": 1, "estimator": {"hvps": 0}}, ["estimator", "hvps", "at least 1"]),
        ({"lam": 1, "estimator": {"method": "ascent"}}, ["estimator", "step_size"]),
        ({"lam": 1, "estimator": {"start": "zero"}}, ["estimator.start", "'gradient'"]),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError) as error:
        build_penalty("hessian", **options)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_broken_file_or_one_without_a_penalty_is_one_clear_error(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("import no_such_module")
    with pytest.raises(UserError, match=r"own\.py cannot be imported: .*no_such_module"):
        build_penalty(str(path), lam=1)
    path.write_text("from input_hessian import HessianPenalty")  # imported, not defined here
    with pytest.raises(UserError, match=r"one class that derives from Penalty in .*own\.py, got 0"):
        build_penalty(str(path), lam=1)
