"""The released networks have the accuracies and norms of the released tables, recomputed here in part."""

import json

import prepare_dataset
import pytest
from helpers.repository import ROOT

from input_hessian.experiment import curvature
from input_hessian.experiment.data import evaluation_images, load
from input_hessian.experiment.evaluate import ATTACKS, evaluate
from input_hessian.experiment.inference import frozen
from input_hessian.experiment.tables import CELL, read_table
from input_hessian.experiment.zoo import load_network, network_names

RELEASED = ROOT / "reports/paper"
MIRROR = ROOT.parent / "shared/datasets"
NETWORKS = network_names(RELEASED / "networks")
# An image whose logits are almost equal may fall on the other side on another processor.
IMAGES = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MIRROR.is_dir(), reason=f"needs the official files in {MIRROR}"),
]


@pytest.fixture(scope="module", params=sorted({dataset for dataset, _ in NETWORKS}))
def data(request, tmp_path_factory):
    """A data set's name and its prepared file."""
    folder, name = tmp_path_factory.mktemp("data"), request.param
    path = folder / f"{name}.safetensors"
    prepare_dataset.main(
        name,
        mirror=str(MIRROR),
        raw=str(folder / "raw"),
        data=path,
        provenance=path.with_suffix(".json"),
    )
    return name, path


def configuration():
    """The configuration of the released run."""
    return json.loads((RELEASED / "provenance.json").read_text())["config"]


def released_rows(table, dataset, regularizer):
    """The rows of a released table that are about a released network: selected, of the first seed."""
    selected = read_table(RELEASED / "tables/autoattack.csv")
    selected = selected.set_index(["dataset", "regularizer"])["lam"].groupby(level=[0, 1]).first()
    network = (dataset, regularizer, selected[dataset, regularizer], configuration()["seeds"][0])
    rows = read_table(RELEASED / f"tables/{table}.csv").set_index(CELL).sort_index()
    return rows.loc[[network]]


@pytest.mark.parametrize("regularizer", sorted({name for _, name in NETWORKS}))
def test_a_released_network_has_the_released_numbers(data, regularizer):
    dataset, path = data
    network = frozen(load_network(dataset, regularizer, RELEASED / "networks"))

    (cell,) = released_rows("cells", dataset, regularizer).to_dict("records")
    images, labels, _ = load(path, "test")
    correct = (network(images).argmax(1) == labels).sum().item()
    assert correct == pytest.approx(len(labels) * cell["test_accuracy"], abs=IMAGES)

    run = configuration()
    attacked = evaluation_images(path, run["evaluation"]["images"])
    found = evaluate(
        network,
        attacked.images,
        attacked.labels,
        epsilons=run["datasets"][dataset]["epsilons"],
        attacks=[each for each in ATTACKS if each.attack in ("fgsm", "pgd", "ddn")],
        seed=run["seeds"][0],
    )
    keys = ["attack", "norm", "epsilon"]
    found = found[found["attack"] != "worst"].set_index(keys)["robust"]
    released = released_rows("robustness", dataset, regularizer).set_index(keys)["robust"]
    assert len(found) == 4 * 5  # FGSM, PGD in both norms, DDN; four radii and none
    assert (found - released[found.index]).abs().max() <= IMAGES

    (norms,) = released_rows("curvature", dataset, regularizer).to_dict("records")
    images, labels, _ = evaluation_images(path, norms["n"])
    (here,) = curvature.measure(network, images, labels)
    for norm in ("gradient_norm", "hessian_norm"):
        assert here[norm].mean() == pytest.approx(norms[f"{norm}_mean"], rel=1e-3)
        assert here[norm].median() == pytest.approx(norms[f"{norm}_median"], rel=1e-2)
