"""The card of the released networks says what the tables say of exactly these networks."""

import json

import pandas as pd
import release_networks
from helpers import tables

HEADLINE = {"digits": tables.HEADLINE, "mine": {"linf": [0.2]}}


def release(folder, **options):
    """Release the last λ of every regularizer, as `selection` chooses it; return the card."""
    trained = tables.cells(datasets=tuple(HEADLINE), **options)
    attacked = tables.robustness(trained)
    selection = tables.selection(trained)
    for name, table in {"cells": trained, "robustness": attacked, "selection": selection}.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    models, training, networks = [], [], []
    grid = [
        {"dataset": dataset, "regularizer": name, "lam": lam}
        for dataset in HEADLINE
        for name, lams in tables.GRID.items()
        for lam in lams
    ]
    for i, cell in enumerate(grid):
        settings = {"cell": cell, "training": {"epochs": 3 + i}}
        record = cell | {"seed": 0, "status": trained["status"][0], "commit": f"abc{i}"}
        models.append(folder / f"{i}.safetensors")
        models[-1].write_bytes(bytes([i]))
        training.append(folder / f"{i}.json")
        training[-1].write_text(json.dumps(record | {"settings": settings}))
    wanted = [{"dataset": d, "regularizer": name} for d in HEADLINE for name in tables.GRID]
    networks = [folder / "{dataset}.{regularizer}.safetensors".format(**of) for of in wanted]
    release_networks.main(
        folder / "selection.csv",
        models,
        training,
        folder / "cells.csv",
        folder / "robustness.csv",
        settings={"networks": wanted, "cells": grid, "headline": HEADLINE},
        networks=networks,
        card_file=folder / "README.md",
    )
    assert [path.read_bytes()[0] for path in networks] == [0, 2, 3, 4, 6, 7]  # the selected ones
    return (folder / "README.md").read_text()


def row(text, file):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{file}`")]
    return [word.strip() for word in line.strip("|").split("|")]


def test_the_card_has_the_numbers_of_the_first_seed(tmp_path):
    text = release(tmp_path)
    attacked = pd.read_csv(tmp_path / "robustness.csv", keep_default_na=False)
    of = attacked.query("dataset == 'digits' and regularizer == 'gradient' and lam == 1")
    of = of.query("seed == 0 and attack == 'worst' and norm == 'l2' and epsilon == 0.5")
    (robust,) = (100 * of["robust_accuracy"]).map("{:.1f}".format)
    found = row(text, "digits.gradient.safetensors")
    assert found[:6] == ["`digits.gradient.safetensors`", "1", "0", "abc2", "finished", found[5]]
    assert found[5] == "91.7 [85.0, 99.0]"
    assert found[7].startswith(f"{robust} [")
    assert "test images. Under attack: 40 of them" in text
    assert "(l∞: fgsm, pgd; l2: fgsm, pgd)" in text
    assert "One of 2 seeds" in text
    assert "## Digits (8x8)" in text
    assert "epochs: 5\n" in text  # of the third cell
    assert "epochs: 4\n" not in text  # of the second, which was not selected
    assert len(row(text, "mine.gradient.safetensors")) == 8  # one radius only: worst case and PGD
    assert 'evaluation_images("data/digits.safetensors", 40)' in text


def test_a_network_that_diverged_is_said_to(tmp_path):
    text = release(tmp_path, status="diverged")
    assert row(text, "digits.hessian.safetensors")[4:] == ["diverged"]
    assert "nan" not in text
    assert "none was attacked" in text


def test_the_card_has_the_worst_case_over_all_attacks():
    trained = tables.cells(seeds=(0,))
    attacked = tables.robustness(trained, ["pgd", "worst"])
    attacked.loc[attacked["attack"] == "pgd", "robust_accuracy"] = 0.9
    record = trained.iloc[-1].to_dict() | {"file": "a", "commit": "b"}
    found = release_networks.measured(record, trained, attacked, {"l2": [0.5]})
    assert found["l2 0.5, PGD alone"].startswith("90.0 [")
    assert found["l2 0.5"] == "38.3 [28.3, 48.3]"  # (0.7 + 0.2 / 3) / 2, and 0.1 on either side
    assert "l∞ 0.1" not in found
