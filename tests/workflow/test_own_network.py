"""A network of one's own in a run that is finished: it joins the results and changes no other number."""

import json

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers.repository import Repository, copy_tree
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from input_hessian.experiment.data import load
from input_hessian.experiment.plugins import load_plugin
from input_hessian.experiment.tables import read_table

pytestmark = pytest.mark.slow

# Trained with what the pipeline does not train: batch normalisation.
MODEL = '''
"""Grey images as if they had three channels, a convolution with batch normalisation."""

from torch import nn


class Grey(nn.Module):
    def forward(self, images):
        return images.expand(-1, 3, -1, -1)


def build(image_shape, classes, *, width=4):
    _, height, side = image_shape
    return nn.Sequential(
        Grey(),
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.Softplus(10),
        nn.Flatten(),
        nn.Linear(width * height * side, classes),
    )
'''
CONFIG = {
    "name": "own",
    "seeds": [0, 1],
    "device": "cpu",
    "mirror": "",
    "datasets": {
        "mnist": None,
        "fashion_mnist": None,
        "digits": {
            "epsilons": {"linf": [0.05, 0.1], "l2": [0.3]},
            "headline": {"linf": [0.1], "l2": [0.3]},
            "max_clean_loss": 5,
        },
    },
    "model": {"width": 8},
    "training": {"epochs": 10, "batch_size": 64, "learning_rate": 0.01},
    "regularizers": {
        **dict.fromkeys(["gradient-sampled", "gradient-squared", "adversarial-linf"]),
        "adversarial-l2": None,
        "gradient": {"lam": [1]},
        "hessian": {"lam": [0.1]},
    },
    "evaluation": {
        "images": 40,
        "attacks": [
            {"attack": "fgsm", "norm": "linf"},
            {"attack": "pgd", "norm": "linf", "steps": 5},
            {"attack": "pgd", "norm": "l2", "steps": 5},
            {"attack": "ddn", "norm": "l2", "steps": 10},
        ],
    },
    "selection": {"images": 30},
    "stronger_attacks": {
        "images": 20,
        "attacks": [{"attack": "square", "norm": "linf", "queries": 20}],
    },
    "masking": {"images": 20, "queries": 20},
    "curvature": {"images": 20},
    "path": {"images": 20, "points": 5},
    "cost": {"rounds": 2},
    "comparison": {
        "families": {"gradient penalty": ["gradient"], "adversarial training": None},
    },
    "recovery": None,
    "certificate": None,
}
NETWORK = {
    "checkpoint": "mine.safetensors",
    "architecture": "my_model.py",
    "options": {"width": 6},
    "dataset": "digits",
}
OTHERS = ["claims.csv", "comparison.csv", "curves.csv", "matched.csv", "sensitivity.csv"]
WITH_NETWORK = ["cells", "robustness", "groups", "curvature", "path", "masking", "autoattack"]


def write_config(path, **more):
    (path / "own.yaml").write_text(yaml.safe_dump(CONFIG | more, sort_keys=False))


def write_network(folder):
    """Train a network for a moment, as somebody else would."""
    (folder / "my_model.py").write_text(MODEL)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    labels = torch.from_numpy(digits.target).long()
    torch.manual_seed(0)
    model = load_plugin("architecture", str(folder / "my_model.py")).build((1, 8, 8), 10, width=6)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for batch in torch.randperm(len(labels)).split(64):
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    save_file(model.state_dict(), folder / "mine.safetensors")
    any_number = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(model.eval(), (images[:4],), dynamic_shapes=any_number)
    torch.export.save(program, folder / "mine.pt2")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The experiment, and what was there before the network joined it."""
    repository = Repository(copy_tree(tmp_path_factory.mktemp("own network")))
    write_config(repository.path)
    repository.snakemake("--cores", "all", "--configfile", "own.yaml")
    tables = repository.path / "reports/own/tables"
    repository.before = {path.name: path.read_text() for path in tables.glob("[!.]*")}
    write_network(repository.path)
    write_config(repository.path, networks={"mine": NETWORK})
    repository.plan = repository.planned("--configfile", "own.yaml")
    repository.snakemake("--cores", "all", "--configfile", "own.yaml")
    return repository


def test_nothing_else_is_trained_or_evaluated(own):
    assert (own.plan["import_network"], own.plan["evaluate"]) == (1, 1)
    assert own.plan.keys().isdisjoint({"train", "measure_cost", "evaluate_control"})
    assert own.planned("--configfile", "own.yaml") == {}


def test_no_number_of_the_others_changes(own):
    tables = own.path / "reports/own/tables"
    for name in OTHERS:
        assert (tables / name).read_text() == own.before[name], name
    for name in WITH_NETWORK:
        lines = (tables / f"{name}.csv").read_text().splitlines()
        others = [line for line in lines if ",mine," not in line]
        assert others == own.before[f"{name}.csv"].splitlines(), name
        assert len(lines) > len(others), name


def test_the_network_is_measured_like_the_others(own):
    folder = own.path / "results/own/digits/mine/lam~0/seed~0"
    assert not folder.with_name("seed~1").exists()
    record = json.loads((folder / "training.json").read_text())
    assert (record["status"], record["epochs"], record["train_seconds"]) == ("finished", 0, None)
    assert record["validation_accuracy"] > 0.8
    summary = (own.path / "reports/own/tables/summary.md").read_text()
    assert "mine: one network, trained elsewhere." in summary
    cells = read_table(own.path / "reports/own/tables/cells.csv").set_index("regularizer")
    assert cells["seed"].value_counts()[0] == 4  # none, gradient, hessian, mine
    test = load(own.path / "data/digits.safetensors", "test")
    model = load_plugin("architecture", str(own.path / "my_model.py")).build((1, 8, 8), 10, width=6)
    model.load_state_dict(load_file(own.path / "mine.safetensors"))
    accuracy = (model.eval()(test.images).argmax(1) == test.labels).double().mean().item()
    assert cells.loc["mine", "test_accuracy"] == pytest.approx(accuracy)
    images = pd.read_parquet(folder / "images.parquet")
    assert set(images["attack"]) == {"fgsm", "pgd", "ddn"}
    curvature = pd.read_parquet(folder / "curvature.parquet")
    assert (curvature["converged"] & (curvature["hessian_norm"] > 0)).all()


def test_provenance_counts_it_and_says_nothing_of_its_training(own):
    record = json.loads((own.path / "reports/own/provenance.json").read_text())
    assert record["cells"] == {"finished": 7}
    assert sum(row["cells"] for row in record["trained_by"]) == 6
    assert record["wall_seconds"]["train"]["jobs"] == record["training_seconds"]["n"] == 6
    assert record["config"]["networks"]["mine"]["checkpoint"] == "mine.safetensors"


def test_the_notebook_copes(own):
    page = (own.path / "reports/own/notebook.html").read_text()
    assert "7 of 7 cells finished" in page
    assert "trained for 5 to 10 epochs" in page
    assert 'data-mime-type="application/vnd.jupyter.stderr"' not in page


def test_code_that_computes_something_else_attacks_it_again(own):
    path = own.path / "my_model.py"
    model = own.path / "results/own/digits/mine/lam~0/seed~0/model.safetensors"
    source, before = path.read_text(), model.read_bytes()
    try:
        path.write_text(source.replace("nn.Softplus(10)", "nn.Softplus(20)"))
        assert own.planned("--configfile", "own.yaml")["evaluate"] == 1
        own.snakemake("--cores", "1", "--configfile", "own.yaml", "--until", "import_network")
        assert model.read_bytes() != before  # of the same parameters
    finally:
        path.write_text(source)


def test_a_checkpoint_that_does_not_fit_ends_the_plan_with_one_line(own):
    write_config(own.path, networks={"mine": NETWORK | {"options": {"width": 5}}})
    done = own.snakemake("-n", "--configfile", "own.yaml", check=False)
    write_config(own.path, networks={"mine": NETWORK})
    assert done.returncode != 0
    assert "networks.mine: mine.safetensors: expected 1.weight of shape (5, 3, 3, 3)" in done.stdout
    assert "Traceback" not in done.stdout


def test_an_exported_program_gets_the_verdicts_of_its_network(own):
    exported = {"checkpoint": "mine.pt2", "dataset": "digits"}
    write_config(own.path, networks={"mine": NETWORK, "exported": exported})
    wanted = "results/own/digits/exported/lam~0/seed~0/images.parquet"
    own.snakemake("--cores", "1", "--configfile", "own.yaml", "--", wanted)
    write_config(own.path, networks={"mine": NETWORK})
    theirs = pd.read_parquet(own.path / wanted)
    ours = pd.read_parquet(own.path / wanted.replace("exported", "mine"))
    assert set(theirs.pop("regularizer")) == {"exported"}
    pd.testing.assert_frame_equal(theirs, ours.drop(columns="regularizer"))
