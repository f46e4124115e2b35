"""Any network under the pipeline's attacks: the same numbers as those of its scripts."""

import pytest
import torch
import yaml
from helpers.repository import ROOT
from torch import nn

from input_hessian.experiment.attacks import AttackSettings, run_attack
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.evaluate import ATTACKS, evaluate

RADII = {"linf": [0.02, 0.1], "l2": [0.1, 0.4]}
QUICK = [attack for attack in ATTACKS if not attack.attack.startswith("apgd")]


@pytest.fixture(scope="module")
def attacked():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Softplus(), nn.Linear(16, 5))
    images = torch.rand(60, 1, 6, 6)
    labels = model(images).argmax(1)
    labels[:6] = (labels[:6] + 1) % 5
    return model, images, labels


def test_accuracies_are_those_of_the_attacks(attacked):
    model, images, labels = attacked
    table = evaluate(*attacked, epsilons=RADII, attacks=QUICK)
    found = table.set_index(["attack", "norm", "epsilon"])["robust_accuracy"]
    assert (table.loc[table["epsilon"] == 0, "robust_accuracy"] == 0.9).all()
    for settings in QUICK:
        record = run_attack(model, images, labels, settings, RADII[settings.norm], seed=0)
        for epsilon, robust in zip(record.epsilons, record.robust, strict=True):
            alone = found[settings.attack, settings.norm, epsilon]
            assert alone == pytest.approx(robust.double().mean().item())
            assert found["worst", settings.norm, epsilon] <= alone
    assert 0 < found["worst", "l2", 0.4] < found["worst", "l2", 0.1] < 0.9
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert (table["n"] == 60).all()
    assert (
        (table["low"] <= table["robust_accuracy"]) & (table["robust_accuracy"] <= table["high"])
    ).all()


def test_the_attacks_are_those_of_the_full_experiment():
    listed = yaml.safe_load((ROOT / "config.yaml").read_text())["evaluation"]["attacks"]
    assert [(a.attack, a.norm, a.steps) for a in ATTACKS] == [
        (a["attack"], a["norm"], a.get("steps", 1)) for a in listed
    ]


def test_a_norm_without_radii_is_left_out(attacked):
    table = evaluate(*attacked, epsilons={"l2": [0.5]}, attacks=QUICK)
    assert set(table["norm"]) == {"l2"}
    assert set(table["attack"]) == {"worst", "pgd", "ddn"}


def test_what_is_wrong_with_the_input_is_one_sentence(attacked):
    model, images, labels = attacked
    fgsm = [AttackSettings("fgsm", "linf")]
    for change, message in (
        ((model, 255 * images, labels), r"images: expected pixels in \[0, 1\]"),
        ((model, images.double(), labels), "images: expected the dtype of the network"),
        ((nn.Sequential(model, nn.Softmax(1)), images, labels), "model: expected logits, got prob"),
        ((model, images, labels + 9), "labels: expected 0 to 4"),
    ):
        with pytest.raises((UserError, ValueError), match=message):
            evaluate(*change, epsilons=RADII, attacks=fgsm)
    for epsilons in ({}, {"l2": [0.5]}, {"Linf": [0.1], "linf": [0.1]}):
        with pytest.raises(UserError, match="epsilons: expected linf or l2 with radii"):
            evaluate(*attacked, epsilons=epsilons, attacks=fgsm)
