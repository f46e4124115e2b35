"""From the attacks on every cell to those on the selected one, and to the table of both."""

import json

import attack
import attack_selected
import collect
import pandas as pd
import pytest
import torch

from input_hessian.experiment import datasets
from input_hessian.experiment.models import build, save_model

CURVE = "epoch,loss,penalty,accuracy,validation_loss,validation_accuracy,seconds,steps\n"
CURVE += "1,0.5,0.1,0.8,0.6,0.75,2.5,10\n"

MODEL = {"architecture": "mlp", "width": 8, "image_shape": [3, 4, 5], "classes": 3}
CELL = {"dataset": "toy", "regularizer": "none", "lam": 0.0, "seed": 0}
EPSILONS = {"linf": [0.002, 0.02], "l2": [0.02, 0.1]}
IMAGES = 40
EARLIER = [{"attack": "pgd", "norm": norm, "steps": 2} for norm in ("linf", "l2")]


def results(folder, status, further):
    """Attack one small network, and go on with it as the selected one; the table of both."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 3, 4, 5), dtype=torch.uint8, generator=generator)
    order = torch.arange(IMAGES)
    data = {"test_images": images, "test_labels": order % 3, "test_index": order}
    provenance = {"class_names": ["a", "b", "c"], "sha256": datasets.checksums(data)}
    datasets.save(data, folder / "toy.safetensors", provenance)
    (folder / "selection.csv").write_text("dataset,regularizer,lam,selected\ntoy,none,0,True\n")

    cell = folder / "toy/none/lam~0/seed~0"
    torch.manual_seed(0)
    save_model(build(**MODEL), MODEL, cell / "model.safetensors", status)
    (cell / "training.json").write_text(json.dumps({**CELL, "status": status, "settings": {}}))
    (cell / "curve.csv").write_text(CURVE)

    settings = {"images": IMAGES, "epsilons": EPSILONS, "headline": EPSILONS}
    inputs = {"data": folder / "toy.safetensors", "device": "cpu", "threads": 1}
    attack.main(
        model=cell / "model.safetensors",
        settings=settings | {"cell": CELL, "attacks": EARLIER},
        **inputs,
        images=cell / "images.parquet",
        perturbations=cell / "perturbations.parquet",
        evaluation=cell / "evaluation.json",
        examples=cell / "examples.safetensors",
    )
    selected = folder / "toy/selected/seed~0/images.parquet"
    attack_selected.main(
        selection=folder / "selection.csv",
        models=[cell / "model.safetensors"],
        earlier=[cell / "images.parquet"],
        settings=settings
        | {"dataset": "toy", "seed": 0, "attacks": further}
        | {"cells": [{"regularizer": "none", "lam": 0.0}]},
        **inputs,
        images=selected,
    )
    grid = {"results": str(folder), "datasets": {"toy": {"none": ["0"]}}, "seeds": [0]}
    tables = {name: folder / f"{name}.csv" for name in ("cells", "robustness", "groups", "curves")}
    collect.main([selected], settings={"grid": grid}, **tables)
    return pd.read_csv(tables["robustness"], keep_default_na=False)


@pytest.mark.parametrize("further", [[], [{"attack": "ddn", "norm": "l2", "steps": 20}]])
def test_the_ensemble_is_the_worst_case_over_all_attacks_on_the_selected_cell(tmp_path, further):
    table = results(tmp_path, "finished", further)
    robust = table.set_index(["norm", "epsilon", "attack"])["robust"].unstack()
    attacks = ["pgd", *(attack["attack"] for attack in further)]
    assert set(robust) == {*attacks, "worst", "ensemble"}
    assert 0 < robust["worst"].min() < robust["worst"].max()
    pd.testing.assert_series_equal(robust["worst"], robust["pgd"], check_names=False)
    assert (robust["ensemble"] <= robust[attacks].min(axis=1)).all()
    if not further:
        pd.testing.assert_series_equal(robust["worst"], robust["ensemble"], check_names=False)


def test_a_diverged_cell_is_not_attacked(tmp_path):
    assert results(tmp_path, "diverged", EARLIER).empty
