import copy

import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from input_hessian.experiment.attacks import AttackSettings
from input_hessian.experiment.evaluation import Records, run_attacks, verdicts
from input_hessian.experiment.masking import check_masking

pytestmark = pytest.mark.slow  # seconds: whole attacks on trained networks

HEADLINE = {"linf": [0.1], "l2": [0.5]}
PGD = {norm: AttackSettings("pgd", norm, steps=20) for norm in HEADLINE}
ATTACKS = [
    AttackSettings("fgsm", "linf"),
    *PGD.values(),
    *(AttackSettings(f"apgd-{kind}", norm) for kind in ("ce", "t") for norm in HEADLINE),
]


@pytest.fixture(scope="module")
def plain():
    """A small network trained on the digits, and the images that it was not trained on."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Softplus(10), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[:1500]), labels[:1500]).backward()
        optimizer.step()
    return model.eval().requires_grad_(False), images[1500:1560], labels[1500:1560]


def checks(model, images, labels, folder):
    index = torch.arange(len(labels))
    correct = model(images).argmax(1) == labels
    records = Records(folder, "")
    table = pd.concat(
        verdicts(settings, record, correct, index, labels)
        for settings, record in run_attacks(
            model, images, labels, ATTACKS, epsilons=HEADLINE, seed=0,
            records=records,
        )
    )  # fmt: skip
    found = check_masking(model, images, labels, table, PGD, HEADLINE, queries=500, seed=0)
    return {check.check: check for check in found}


def test_plain_training_passes_every_check(plain, tmp_path):
    found = checks(*plain, tmp_path)
    assert [name for name, check in found.items() if check.flagged] == []
    model, images, labels = plain
    logits = model(images)
    assert found["logit_scale"].value == pytest.approx(logits.abs().amax(1).mean().item())
    margins = [
        z[y] - max(z[k] for k in range(10) if k != y) for z, y in zip(logits, labels, strict=True)
    ]
    assert found["margin"].value == pytest.approx(torch.stack(margins).mean().item(), rel=1e-5)


def test_a_saturated_softmax_is_flagged(plain, tmp_path):
    """Same predictions, so the same true robustness; the cross-entropy's gradients are gone."""
    model, images, labels = plain
    masked = copy.deepcopy(model)
    masked[3].weight *= 1e4
    masked[3].bias *= 1e4
    assert torch.equal(masked(images).argmax(1), model(images).argmax(1))
    found = checks(masked, images, labels, tmp_path)
    flagged = {name for name, check in found.items() if check.flagged}
    assert {"zero_gradients", "pgd_gap", "huge_epsilon"} <= flagged
    assert found["zero_gradients"].value > 0.9


def test_each_comparison_counts_the_images_that_it_names(plain):
    """On verdicts made up: FGSM alone breaks two, APGD alone three of the sixty images."""
    model, images, labels = plain
    rows = []
    for attack, norm in [(s.attack, s.norm) for s in ATTACKS]:
        for i in range(60):
            broken = (attack == "fgsm" and i < 2) or (attack == "apgd-t" and 10 <= i < 13)
            for epsilon in (0.0, *HEADLINE[norm]):
                rows.append((i, attack, norm, epsilon, epsilon == 0 or not broken))
    table = pd.DataFrame(rows, columns=["index", "attack", "norm", "epsilon", "robust"])
    found = {
        c.check: c
        for c in check_masking(model, images, labels, table, PGD, HEADLINE, queries=500, seed=0)
    }
    assert found["single_step"].value == pytest.approx(2 / 60)
    assert found["pgd_gap"].value == pytest.approx(3 / 60)
    assert not found["more_steps"].flagged  # twenty steps are enough here
    assert found["black_box"].flagged  # Square does break images of this network


class Pixels(nn.Module):
    """A network without parameters: the first pixels are its logits."""

    def forward(self, images):
        return 9 * images.flatten(1)[:, :10]


def test_a_network_without_parameters_is_checked(plain):
    _, images, labels = plain
    nothing = pd.DataFrame(columns=["index", "attack", "norm", "epsilon", "robust"])
    found = check_masking(Pixels(), images, labels, nothing, {}, HEADLINE, queries=9, seed=0)
    assert found[-1].check == "margin"
