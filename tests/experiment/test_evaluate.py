"""Any network under the pipeline's attacks: the same numbers as those of its scripts."""

import json
from dataclasses import asdict

import attack
import collect
import pandas as pd
import pytest
import torch
import yaml
from helpers.repository import ROOT
from torch import nn

from input_hessian.experiment import datasets
from input_hessian.experiment.attacks import AttackSettings, run_attack
from input_hessian.experiment.data import evaluation_images
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.evaluate import ATTACKS, evaluate
from input_hessian.experiment.models import build, load_model, save_model

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


def test_the_numbers_are_those_of_the_workflow(tmp_path):
    """Of its scripts, from the model's file to the table: all attacks, its images, its seed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (60, 3, 5, 5), dtype=torch.uint8, generator=generator)
    made = {"architecture": "mlp", "width": 8, "image_shape": [3, 5, 5], "classes": 5}
    torch.manual_seed(0)
    network, folder = build(**made), tmp_path / "toy/none/lam~0/seed~3"
    with torch.no_grad():
        logits = network(images.float() / 255)
        network[-1].bias -= logits.mean(0)  # no class wins everywhere
    labels = (logits - logits.mean(0)).argmax(1)
    labels[::7] = (labels[::7] + 1) % 5
    data = {"test_images": images, "test_labels": labels, "test_index": torch.arange(60)}
    provenance = {"class_names": list("abcde"), "sha256": datasets.checksums(data)}
    datasets.save(data, tmp_path / "toy.safetensors", provenance)
    save_model(network, made, folder / "model.safetensors")

    cell = {"dataset": "toy", "regularizer": "none", "lam": 0.0, "seed": 3}
    headline = {norm: radii[-1:] for norm, radii in RADII.items()}
    attack.main(
        data=tmp_path / "toy.safetensors",
        model=folder / "model.safetensors",
        settings={"cell": cell, "images": 40, "epsilons": RADII, "headline": headline}
        | {"attacks": [asdict(settings) for settings in ATTACKS]},
        device="cpu",
        threads=1,
        images=folder / "images.parquet",
        perturbations=folder / "perturbations.parquet",
        evaluation=folder / "evaluation.json",
        examples=folder / "examples.safetensors",
    )
    (folder / "training.json").write_text(json.dumps(cell | {"settings": {}}))
    (folder / "curve.csv").write_text(",".join(collect.CURVE) + "\n")
    grid = {"results": str(tmp_path), "datasets": {"toy": {"none": ["0"]}}, "seeds": [3]}
    tables = {name: tmp_path / f"{name}.csv" for name in ("cells", "groups", "curves")}
    collect.main(settings={"grid": grid}, robustness=tmp_path / "robustness.csv", **tables)
    theirs = pd.read_csv(tmp_path / "robustness.csv", keep_default_na=False).drop(columns=[*cell])

    network, _ = load_model(folder / "model.safetensors")
    chosen = evaluation_images(tmp_path / "toy.safetensors", 40)
    ours = evaluate(network, chosen.images, chosen.labels, epsilons=RADII, seed=3)
    key = ["attack", "norm", "epsilon"]
    pd.testing.assert_frame_equal(
        *(table.set_index(key).sort_index() for table in (ours, theirs)), rtol=1e-12
    )
    assert ours["robust"].nunique() > 5


def test_a_network_in_training_mode_is_attacked_in_evaluation_mode(attacked):
    model, images, labels = attacked
    dropping = nn.Sequential(nn.Dropout(0.5), model).train()
    fgsm = [AttackSettings("fgsm", "linf")]
    table = evaluate(dropping, images, labels, epsilons=RADII, attacks=fgsm)
    pd.testing.assert_frame_equal(table, evaluate(*attacked, epsilons=RADII, attacks=fgsm))
    assert dropping.training
    # Without a parameter to train, nothing is copied.
    alone = nn.Sequential(nn.Dropout(0.5), model).requires_grad_(False).train()
    alone[1].eval()
    evaluate(alone, images, labels, epsilons=RADII, attacks=fgsm)
    assert (alone.training, alone[0].training, alone[1].training) == (True, True, False)


def test_the_attacks_are_those_of_the_full_experiment():
    listed = yaml.safe_load((ROOT / "config.yaml").read_text())["evaluation"]["attacks"]
    assert [(a.attack, a.norm, a.steps, a.radii) for a in ATTACKS] == [
        (a["attack"], a["norm"], a.get("steps", 1), a.get("radii")) for a in listed
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
        ((model, images, labels.int()), "labels: .*int64 of shape .60,., got torch.int32"),
        ((model, images[:, :, 1:], labels), r"cannot evaluate a batch of shape \(60, 1, 5, 6\)"),
    ):
        with pytest.raises((UserError, ValueError), match=message):
            evaluate(*change, epsilons=RADII, attacks=fgsm)
    for epsilons in ({}, {"l2": [0.5]}, {"Linf": [0.1], "linf": [0.1]}):
        with pytest.raises(UserError, match="epsilons: expected linf or l2 with radii"):
            evaluate(*attacked, epsilons=epsilons, attacks=fgsm)
    for epsilons, message in (
        ([0.1], r"epsilons: expected radii per norm, .* got \[0.1\]"),
        ({"linf": 0.1}, "epsilons: expected a list of finite, increasing numbers"),
        ({"linf": [8]}, "epsilons: got 8, expected at most 1, .* write 0.03137"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(*attacked, epsilons=epsilons, attacks=fgsm)
    with pytest.raises(UserError, match=r"attacks: expected a list of AttackSettings, got .*fgsm"):
        evaluate(*attacked, epsilons=RADII, attacks=[{"attack": "fgsm", "norm": "linf"}])
    with pytest.raises(UserError, match=r"model: expected a torch\.nn\.Module, got a function"):
        evaluate(lambda x: model(x), images, labels, epsilons=RADII, attacks=fgsm)
