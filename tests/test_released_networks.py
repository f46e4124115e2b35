"""The released networks have the accuracies and norms of the released tables, recomputed here in part."""

import io
import json
import zipfile

import pandas as pd
import prepare_dataset
import pytest
from helpers.repository import ROOT

from input_hessian.experiment import curvature
from input_hessian.experiment.data import evaluation_images, load
from input_hessian.experiment.evaluate import ATTACKS, outcomes
from input_hessian.experiment.inference import frozen
from input_hessian.experiment.tables import CELL, read_table
from input_hessian.experiment.zoo import load_network, network_names

RELEASED = ROOT / "reports/paper"
MIRROR = ROOT.parent / "shared/datasets"
NETWORKS = network_names(RELEASED / "networks")
IMAGES = 200
# An image whose logits are almost equal may fall on the other side on another processor.
TIES = 3

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


def released_outcomes(cell):
    """What every attack did to every image, from the released archive."""
    place = "results/paper/{dataset}/{regularizer}/lam~{lam:g}/seed~{seed}/images.parquet"
    with zipfile.ZipFile(RELEASED / "cells.zip") as archive:
        return pd.read_parquet(io.BytesIO(archive.read(place.format(**cell))))


@pytest.mark.parametrize("regularizer", sorted({name for _, name in NETWORKS}))
def test_a_released_network_has_the_released_numbers(data, regularizer):
    dataset, path = data
    network = frozen(load_network(dataset, regularizer, RELEASED / "networks"))

    (cell,) = released_rows("cells", dataset, regularizer).reset_index().to_dict("records")
    images, labels, _ = load(path, "test")
    correct = (network(images).argmax(1) == labels).sum().item()
    assert correct == pytest.approx(len(labels) * cell["test_accuracy"], abs=TIES)

    # On a part of the images, and by attacks that draw no random numbers: image by image.
    attacked = evaluation_images(path, IMAGES)
    found = outcomes(
        network,
        attacked.images,
        attacked.labels,
        epsilons=configuration()["datasets"][dataset]["epsilons"],
        attacks=[each for each in ATTACKS if each.attack in ("fgsm", "ddn")],
    )
    found["index"] = attacked.index.numpy()[found["index"]]
    released = released_outcomes(cell)
    compared = found.merge(released, on=["index", "attack", "norm", "epsilon"])
    assert len(compared) == len(found) == 2 * 5 * IMAGES  # four radii, and none
    assert (compared["robust_x"] != compared["robust_y"]).mean() < 0.005

    (norms,) = released_rows("curvature", dataset, regularizer).to_dict("records")
    images, labels, _ = evaluation_images(path, norms["n"])
    (here,) = curvature.measure(network.double(), images.double(), labels)  # as the workflow
    for norm in ("gradient_norm", "hessian_norm"):
        assert here[norm].mean() == pytest.approx(norms[f"{norm}_mean"], rel=1e-3)
        assert here[norm].median() == pytest.approx(norms[f"{norm}_median"], rel=1e-2)
