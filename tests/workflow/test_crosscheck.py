"""Our evaluation of trained networks against another library's attacks and AutoAttack's driver."""

import warnings
from pathlib import Path

import pytest
import torch
from pyautoattack import AutoAttack

from input_hessian.experiment.attacks import AttackSettings, run_attack
from input_hessian.experiment.data import load
from input_hessian.experiment.evaluation import Records, run_attacks
from input_hessian.experiment.models import load_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchattacks

pytestmark = pytest.mark.slow

EPSILON = {"linf": 0.1, "l2": 0.5}


@pytest.fixture(scope="module")
def network(demo):
    folder = Path(demo.path)
    model, _ = load_model(
        folder / "results/everything/digits/hessian/lam~1/seed~0/model.safetensors"
    )
    test = load(folder / "data/digits.safetensors", "test")
    return model, test.images, test.labels


def other(attack, norm, model):
    """The same attack of torchattacks (Kim 2020), with the same budget."""
    epsilon, name = EPSILON[norm], {"linf": "Linf", "l2": "L2"}[norm]
    match attack, norm:
        case "pgd", "linf":
            return torchattacks.PGD(model, eps=epsilon, alpha=2.5 * epsilon / 100, steps=100)
        case "pgd", "l2":
            return torchattacks.PGDL2(model, eps=epsilon, alpha=2.5 * epsilon / 100, steps=100)
        case "apgd-ce", _:
            return torchattacks.APGD(model, norm=name, eps=epsilon, steps=100)
        case "apgd-t", _:
            return torchattacks.APGDT(model, norm=name, eps=epsilon, steps=100)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["pgd", "apgd-ce", "apgd-t"])
def test_another_library_finds_the_same_robust_accuracy(network, attack, norm):
    """Within one point, on 400 images."""
    model, images, labels = network
    settings = AttackSettings(attack, norm, steps=100 if attack == "pgd" else 1)
    ours = run_attack(model, images, labels, settings, [EPSILON[norm]], seed=0).robust[0]
    torch.manual_seed(0)
    examples = other(attack, norm, model)(images, labels)
    theirs = model(examples).argmax(1) == labels
    assert 0.3 < ours.double().mean() < 0.95
    assert abs(ours.double().mean() - theirs.double().mean()) <= 0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("cell", ["none/lam~0", "hessian/lam~1", "adversarial-l2/lam~0.5"])
def test_evaluation_gives_the_verdicts_of_the_driver_of_autoattack(demo, cell, norm, tmp_path):
    """All attacks of an evaluation, cheap ones first and several radii, image by image."""
    folder = Path(demo.path)
    model, _ = load_model(folder / f"results/everything/digits/{cell}/seed~0/model.safetensors")
    images, labels, _ = (field[:40] for field in load(folder / "data/digits.safetensors", "test"))
    radius, name = EPSILON[norm], {"linf": "Linf", "l2": "L2"}[norm]
    headline = {"radii": "headline"}
    attacks = [AttackSettings("pgd", norm, steps=20), AttackSettings("apgd-ce", norm)]
    attacks += [
        AttackSettings(attack, norm, **headline) for attack in ("apgd-t", "fab-t", "square")
    ]
    if norm == "l2":
        attacks.append(AttackSettings("ddn", norm, steps=100))
    *_, (_, last) = run_attacks(
        model,
        images,
        labels,
        attacks,
        epsilons={norm: [radius / 2, radius, 1.5 * radius]},
        headline={norm: [radius]},
        seed=0,
        records=Records(tmp_path, ""),
    )
    driver = AutoAttack(model, norm=name, eps=radius, seed=0)
    examples, _ = driver.run_standard_evaluation(images, labels)
    assert torch.equal(last.robust[0], model(examples).argmax(1) == labels)
