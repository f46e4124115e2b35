"""What stronger attacks and other networks' examples break of what the first attacks left."""

import copy

import attack
import pandas as pd
import pytest
import run_stronger_attacks
import tabulate_stronger_attacks
import torch

from input_hessian.experiment import datasets
from input_hessian.experiment.blocks import to_markdown
from input_hessian.experiment.models import build, load_model, save_model

MODEL = {"architecture": "mlp", "width": 8, "image_shape": [3, 4, 5], "classes": 3}
# Rounded to float32, both are larger: what an attack found there must not be lost to that.
EPSILONS = {"linf": [0.05], "l2": [0.3]}
IMAGES, HARDER = 40, 30
EARLIER = [{"attack": "fgsm", "norm": norm} for norm in ("linf", "l2")]
# In l2, they run in another order than that of their names.
MORE = [
    {"attack": "apgd-ce", "norm": "linf", "restarts": 2},
    {"attack": "ddn", "norm": "l2", "steps": 20},
    {"attack": "apgd-ce", "norm": "l2"},
]
# One regularizer with two lam, of which the second is selected.
NETWORKS = [("none", 0.0), ("gradient", 1.0), ("gradient", 3.0)]


@pytest.fixture
def run(tmp_path):
    """A function that attacks three small networks, then the selected two harder."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 3, 4, 5), dtype=torch.uint8, generator=generator)
    torch.manual_seed(0)
    network = build(**MODEL)
    with torch.no_grad():
        network[-1].bias -= network(images.float() / 255).mean(0)  # no class wins everywhere
    labels = network(images.float() / 255).argmax(1)
    data = {"test_images": images, "test_labels": labels, "test_index": torch.arange(IMAGES)}
    provenance = {"class_names": ["a", "b", "c"], "sha256": datasets.checksums(data)}
    datasets.save(data, tmp_path / "toy.safetensors", provenance)
    rows = [f"toy,{name},{lam:g},{lam != 1}" for name, lam in NETWORKS]
    (tmp_path / "selection.csv").write_text("\n".join(["dataset,regularizer,lam,selected", *rows]))
    inputs = {"data": tmp_path / "toy.safetensors", "device": "cpu", "threads": 1}

    def attacked(statuses=("finished",) * 3, more=MORE):
        folders = [tmp_path / f"{name}-{lam:g}" for name, lam in NETWORKS]
        for i, ((name, lam), folder) in enumerate(zip(NETWORKS, folders, strict=True)):
            torch.manual_seed(1)
            alike = copy.deepcopy(network)  # so that examples of one break another
            with torch.no_grad():
                for weight in alike.parameters():
                    weight += 0.01 * i * torch.randn_like(weight)
            save_model(alike, MODEL, folder / "model.safetensors", statuses[i])
            cell = {"dataset": "toy", "regularizer": name, "lam": lam, "seed": 0}
            attack.main(
                model=folder / "model.safetensors",
                settings={"cell": cell, "images": IMAGES, "attacks": EARLIER}
                | {"epsilons": EPSILONS, "headline": EPSILONS},
                **inputs,
                images=folder / "images.parquet",
                perturbations=folder / "perturbations.parquet",
                evaluation=folder / "evaluation.json",
                examples=folder / "examples.safetensors",
            )
        run_stronger_attacks.main(
            selection=tmp_path / "selection.csv",
            models=[folder / "model.safetensors" for folder in folders],
            earlier=[folder / "images.parquet" for folder in folders],
            settings={"dataset": "toy", "seed": 0, "images": HARDER, "epsilons": EPSILONS}
            | {"attacks": more}
            | {"cells": [{"regularizer": name, "lam": lam} for name, lam in NETWORKS]},
            **inputs,
            images=tmp_path / "toy.parquet",
            transfer=tmp_path / "toy.transfer.csv",
        )
        transfer = pd.read_csv(tmp_path / "toy.transfer.csv", keep_default_na=False)
        return pd.read_parquet(tmp_path / "toy.parquet"), transfer

    attacked.folder = tmp_path
    return attacked


def test_each_attack_gets_what_is_left_and_transfer_is_last(run):
    outcomes, _ = run()
    assert outcomes.groupby("regularizer", sort=False)["lam"].unique().to_dict() == {
        "none": [0],
        "gradient": [3],
    }
    expected = {
        "linf": ["all networks", "apgd-ce", "transfer"],
        "l2": ["all networks", "ddn", "apgd-ce", "transfer"],
    }
    for (_, norm), rows in outcomes.groupby(["regularizer", "norm"]):
        assert list(rows["attack"].unique()) == expected[norm]
        assert set(rows.groupby("attack")["index"].nunique()) == {HARDER}
        standing = rows.pivot(index="index", columns="attack", values="robust")[expected[norm]]
        assert not (~standing.iloc[:, :-1].to_numpy() & standing.iloc[:, 1:].to_numpy()).any()
        assert standing.iloc[:, 0].any()
    before = pd.read_parquet(run.folder / "none-0/images.parquet")
    before = before[(before["norm"] == "linf") & (before["epsilon"] == EPSILONS["linf"][0])]
    first = outcomes[outcomes["attack"] == "all networks"]
    first = first[(first["regularizer"] == "none") & (first["norm"] == "linf")]
    robust = before.set_index("index")["robust"].loc[first["index"]]
    assert first["robust"].tolist() == robust.tolist()


def test_transfer_counts_the_examples_that_break_both(run):
    outcomes, transfer = run(more=MORE[:1])
    assert transfer[["source", "target"]].drop_duplicates().to_numpy().tolist() == [
        ["none", "gradient"],
        ["gradient", "none"],
    ]
    chosen = run_stronger_attacks.evaluation_images(run.folder / "toy.safetensors", HARDER)
    networks = {
        name: load_model(run.folder / f"{name}-{lam}/model.safetensors")[0]
        for name, lam in (("none", 0), ("gradient", 3))
    }
    for norm, (epsilon,) in EPSILONS.items():
        # the same attack, from the seed after that of the networks
        matrix, broken = run_stronger_attacks.transfer_examples(
            networks, chosen, norm, epsilon, seed=1
        )
        counted = transfer[transfer["norm"] == norm][["examples", "fooled"]]
        assert counted.to_numpy().tolist() == matrix[["examples", "fooled"]].to_numpy().tolist()
        assert 0 < matrix["fooled"].sum() <= matrix["examples"].sum()
        previous = "apgd-ce" if norm == "linf" else "all networks"
        for name in networks:
            rows = outcomes[(outcomes["regularizer"] == name) & (outcomes["norm"] == norm)]
            standing = rows.pivot(index="index", columns="attack", values="robust")
            left = standing[previous].to_numpy() & ~broken[name].numpy()
            assert standing["transfer"].tolist() == left.tolist()
    # A network's examples break its copy.
    twins = {"a": networks["none"], "b": networks["none"]}
    same, broken = run_stronger_attacks.transfer_examples(twins, chosen, "linf", 0.05, seed=1)
    assert (same["fooled"] == same["examples"]).all()
    assert broken["a"].sum() == same["examples"].iloc[0] > 0


def test_the_table_says_how_much_was_found(run):
    outcomes, transfer = run()
    table = tabulate_stronger_attacks.tabulate(outcomes)
    text = to_markdown(tabulate_stronger_attacks.describe(table, transfer))
    rows = table[(table["regularizer"] == "none") & (table["norm"] == "l2")]
    assert rows["attack"].tolist() == ["all networks", "ddn", "apgd-ce", "transfer"]
    left = outcomes[(outcomes["regularizer"] == "none") & (outcomes["norm"] == "l2")]
    left = left.groupby("attack")["robust"].sum()
    assert rows["robust"].tolist() == left[rows["attack"]].tolist()
    assert rows["found"].tolist()[:2] == [0, left["all networks"] - left["ddn"]]
    lost = table.groupby(["regularizer", "norm"])["robust"].agg(lambda r: r.iloc[0] - r.iloc[-1])
    assert f"At most they found {100 * lost.max() / HARDER:.1f} points" in text
    assert "on 30 of the attacked test images" in text
    linf, l2 = sorted(text.split("### toy, ")[1:], reverse=True)
    assert text.count("### Transfer, toy, ") == 2  # who breaks whom
    assert ("| ddn " in linf, "| ddn " in l2) == (False, True)


def test_a_diverged_network_is_left_out(run):
    outcomes, transfer = run(statuses=("diverged", "finished", "finished"))
    assert set(outcomes["regularizer"]) == {"gradient"}
    assert transfer.empty


def test_nothing_finished_is_a_table_without_rows(run):
    outcomes, transfer = run(statuses=("diverged",) * 3)
    assert outcomes.empty
    table = tabulate_stronger_attacks.tabulate(outcomes)
    assert table.empty
    text = to_markdown(tabulate_stronger_attacks.describe(table, transfer))
    assert text == "Every selected network diverged.\n"
