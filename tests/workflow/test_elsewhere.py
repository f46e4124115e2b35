"""An experiment of one's own: colour images, own penalty, model and data set, run from another folder.

The clone lies in a folder with spaces, Snakemake runs in another one, and everything that is the user's
own (the configuration and three Python files) is there.
"""

import json
import shutil
import subprocess

import pandas as pd
import pytest
import yaml
from helpers import tiny_cifar10
from helpers.repository import ENVIRONMENT, Repository, copy_tree
from PIL import Image
from snakemake.utils import update_config

pytestmark = pytest.mark.slow

PENALTY = '''
"""The size of the logits."""

from dataclasses import dataclass

import torch.nn.functional as F

from input_hessian import Objective, Penalty


@dataclass(frozen=True)
class LogitScale(Penalty):
    """``ell + lam mean |z|^power``."""

    power: int = 2

    def __call__(self, model, images, labels, generator):
        logits = model(images)
        loss = F.cross_entropy(logits, labels, reduction="none")
        return Objective(loss, self.lam * logits.abs().pow(self.power).mean(1), logits)
'''

MODEL = '''
"""One hidden layer."""

import math

from torch import nn


def build(image_shape, classes, *, units: int = 8):
    hidden = nn.Linear(math.prod(image_shape), units)
    return nn.Sequential(nn.Flatten(), hidden, nn.Softplus(10), nn.Linear(units, classes))
'''

CONFIG = {
    "name": "own",
    "seeds": [0],
    "device": "cpu",
    "mirror": "mirror",
    "datasets": {
        "mnist": None,
        "fashion_mnist": None,
        "tiny": {
            "file": "tiny_cifar10.py",
            "epsilons": {"linf": [0.1], "l2": [1, 2]},
            "headline": {"linf": [0.1], "l2": [2]},
        },
    },
    "model": {
        "architecture": "shallow.py",
        "units": 16,
        "width": None,
        "activation": None,
        "beta": None,
    },
    "training": {"epochs": 8, "batch_size": 20, "learning_rate": 0.01},
    "regularizers": {
        "gradient": None,
        "adversarial-l2": None,
        "hessian": {"lam": [0.1]},
        "logit-scale": {"penalty": "logit_scale.py", "power": 1, "lam": [0.1]},
    },
    "evaluation": {
        "images": 20,
        "attacks": [
            {"attack": "pgd", "norm": "l2", "steps": 3},
            {"attack": "ddn", "norm": "l2", "steps": 5},
        ],
    },
    "curvature": {"images": 20},
    "path": {"images": 20, "points": 11},
    "selection": None,
    "stronger_attacks": None,
    "masking": None,
    "cost": None,
    "recovery": None,
    "comparison": None,
    "certificate": None,
}
FIGURES = ["curvature_tiny", "examples_tiny_l2", "learning_curves_tiny"]
FIGURES += ["pareto", "path", "radius_tiny", "robustness_tiny"]
OWN = "results/own/tiny/logit-scale/lam~0.1/seed~0"


class Own(Repository):
    """A working folder beside the clone."""

    def command(self, *arguments: str) -> list[str]:
        given = (*arguments, "-s", "../a clone/workflow/Snakefile")
        return super().command(*given)

    def snakemake(self, *arguments: str, check: bool = True):
        return super().snakemake(*arguments, "--configfile", "own.yaml", check=check)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The experiment, computed whole."""
    folder = tmp_path_factory.mktemp("two folders")
    copy_tree(folder / "a clone")
    repository = Own(folder / "my work")
    repository.path.mkdir()
    (repository.path / "own.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    (repository.path / "logit_scale.py").write_text(PENALTY)
    (repository.path / "shallow.py").write_text(MODEL)
    shutil.copy(tiny_cifar10.__file__, repository.path)
    tiny_cifar10.write_mirror(repository.path / "mirror")
    repository.output = repository.snakemake("--cores", "all").stdout
    return repository


def test_what_was_asked_for_is_there_and_nothing_else(own):
    figures = own.path / "reports/own/figures"
    assert sorted(path.name for path in figures.glob("[!.]*")) == sorted(
        f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png")
    )
    tables = {path.name for path in (own.path / "reports/own/tables").glob("[!.]*")}
    assert tables == {
        *("cells.csv", "robustness.csv", "groups.csv", "curves.csv", "curvature.csv", "path.csv"),
        *("summary.csv", "summary.md", "summary.tex", "claims.csv", "claims.md"),
    }
    cells = pd.read_csv(own.path / "reports/own/tables/cells.csv", keep_default_na=False)
    assert set(cells["regularizer"]) == {"none", "hessian", "logit-scale"}
    assert set(cells["status"]) == {"finished"}


def test_options_of_own_files_reach_the_network(own):
    record = json.loads((own.path / OWN / "training.json").read_text())
    assert record["settings"]["penalty"] == {"penalty": "logit_scale.py", "lam": 0.1, "power": 1}
    pixels, classes = 3 * 32 * 32, 10
    assert record["parameters"] == 16 * (pixels + 1) + classes * 17


def test_colours_arrive_in_the_figures(own):
    page = Image.open(own.path / "reports/own/figures/examples_tiny_l2.png").convert("RGB")
    assert any(max(colour) - min(colour) > 60 for _, colour in page.getcolors(256**3))


def test_notebook_tells_what_was_computed_and_no_more(own):
    page = (own.path / "reports/own/notebook.html").read_text()
    assert "3 of 3 cells finished" in page
    assert "not tested" in page
    assert "Points beyond the axes" in page  # the section that needs the curvature
    assert "Stronger attacks" not in page
    assert 'data-mime-type="application/vnd.jupyter.stderr"' not in page


def test_nothing_was_written_into_the_clone(own):
    clone = own.path.parent / "a clone"
    assert not any((clone / name).exists() for name in ("results", "data", "logs", ".snakemake"))


def test_second_run_does_nothing_and_own_penalty_repeats_its_own_cell(own):
    assert own.planned() == {}
    path = own.path / "logit_scale.py"
    before = path.read_text()
    path.write_text(before + "\n# edited\n")
    planned = own.planned()
    path.write_text(before)
    assert (planned["train"], planned["evaluate"]) == (1, 1)


def test_a_workflow_can_use_all_rules_as_a_module(own):
    """Under a prefix of its own, with its own figure of our table, from a folder of its own."""
    folder = own.path.parent / "another workflow"
    folder.mkdir()
    for name in ("logit_scale.py", "shallow.py", "tiny_cifar10.py", "mirror"):
        (folder / name).symlink_to(own.path / name)
    (folder / "Snakefile").write_text(
        f"""
configfile: "config.yaml"

module hessian:
    snakefile: "../a clone/workflow/Snakefile"
    config: config["hessian"]
    prefix: "below"

use rule * from hessian as hessian_*

rule all:
    default_target: True
    input: "below/{OWN}/training.json"
    output: "mine.txt"
    shell: "cp '{{input}}' {{output}}"
"""
    )
    merged = yaml.safe_load((own.path / "../a clone/config.yaml").read_text())
    update_config(merged, CONFIG)
    (folder / "config.yaml").write_text(yaml.safe_dump({"hessian": merged}, sort_keys=False))
    done = subprocess.run(
        Repository(folder).command("--cores", "1"),
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    ours = json.loads((folder / "mine.txt").read_text())
    theirs = json.loads((own.path / OWN / "training.json").read_text())
    assert ours["settings"] == theirs["settings"]
    model = f"{OWN}/model.safetensors"
    assert (folder / "below" / model).read_bytes() == (own.path / model).read_bytes()
    plan = Repository(folder).command("-n", "hessian_all")
    done = subprocess.run(plan, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert "hessian_tabulate" in done.stdout + done.stderr
