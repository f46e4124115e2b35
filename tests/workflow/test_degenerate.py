"""Results that are legitimate but degenerate: the run ends well, and all of it is drawn and told."""

import json

import pandas as pd
import pytest
from helpers.repository import Repository, copy_tree

pytestmark = pytest.mark.slow

RADII = {"linf": [0.1], "l2": [0.5]}
# As little as there can be: one seed, one lam, and nothing beside the attacks.
LEAST = {
    "device": "cpu",
    "seeds": [0],
    "datasets": {
        "mnist": None,
        "fashion_mnist": None,
        "digits": {"epsilons": RADII, "headline": RADII},
    },
    "model": {"architecture": "mlp", "width": 4},
    "regularizers": {"gradient": None, "hessian": {"lam": [1]}, "adversarial-l2": None},
    "evaluation": {
        "images": 20,
        "attacks": [
            {"attack": "fgsm", "norm": "linf"},
            {"attack": "pgd", "norm": "linf", "steps": 2},
            {"attack": "ddn", "norm": "l2", "steps": 10},
        ],
    },
    **dict.fromkeys(["selection", "masking", "curvature", "path", "cost", "recovery"]),
    **dict.fromkeys(["stronger_attacks", "comparison", "certificate"]),
}
CURVATURE = {"curvature": {"images": 20}}
EVERYTHING = CURVATURE | {
    "path": {"images": 20, "points": 5},
    "selection": {"images": 20},
    "stronger_attacks": {"images": 20, "attacks": [{"attack": "fgsm", "norm": "l2"}]},
    "comparison": {"reference": "hessian"},
    "cost": {"rounds": 1},
    "recovery": {"lam": [1], "images": 8, "progress": [0, 1], "hvps": [1, 3], "draws": 1},
    "certificate": {"model": {"width": 4}, "regularizers": [{"name": "hessian", "lam": 1}]},
}
CASES = {
    # Nothing is learned: every loss is above log 2, so that every predicted radius is 0.
    "untrained": LEAST | CURVATURE | {"training": {"epochs": 1, "learning_rate": 1e-9}},
    # The penalty leaves a network that says the same of every image.
    "dead": LEAST
    | CURVATURE
    | {
        "masking": {"images": 10},
        "training": {"epochs": 20, "batch_size": 512, "learning_rate": 0.1},
        "regularizers": LEAST["regularizers"] | {"hessian": {"lam": [1e6]}},
    },
    # Everything diverges or saturates: losses of 1e6, gradients and Hessians of exactly 0.
    "saturated": LEAST | EVERYTHING | {"training": {"epochs": 1, "learning_rate": 1e6}},
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Repository(copy_tree(tmp_path_factory.mktemp("clone")))


@pytest.mark.parametrize("case", CASES)
def test_a_degenerate_run_is_drawn_and_told(clone, case):
    option = clone.write_config(case, **CASES[case])
    clone.snakemake("--cores", "2", *option)
    report = clone.path / "reports" / case
    for figure in json.loads((report / "provenance.json").read_text())["figures"]:
        assert (report / f"figures/{figure}.png").stat().st_size > 0
    assert "Traceback" not in (report / "notebook.html").read_text()
    assert "holds" not in set(pd.read_csv(report / "tables/claims.csv")["verdict"])
