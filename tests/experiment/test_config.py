"""The committed configurations are valid and explained; what is wrong with another one is said."""

import copy
import json
import re
import subprocess
import sys

import jsonschema
import pytest
import torch
import yaml
from helpers.repository import ROOT
from pydantic import TypeAdapter
from snakemake.utils import update_config

from input_hessian import estimators
from input_hessian.experiment import attacks
from input_hessian.experiment import config as module
from input_hessian.experiment.config import json_schema, read_config
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.models import build
from input_hessian.experiment.penalty import build_penalty
from input_hessian.experiment.plugins import PACKAGES

FULL = yaml.safe_load((ROOT / "config.yaml").read_text())
VARIED = sorted((ROOT / "config").glob("*.yaml"))
SCHEMA = json_schema()

# Every penalty: two with one list of lam for all data sets, and one that is trained on one alone.
EVERY_PENALTY = """
regularizers:
  gradient: {lam: [0.3, 1, 3, 10]}
  hessian: {lam: [0.3, 1, 3, 10]}
  taylor: {penalty: taylor, lam: [0.5]}
  cure: {penalty: cure, lam: [1], step: 1}
  jacobian: {penalty: jacobian, lam: [0.1], n_proj: 1}
  trades: {penalty: trades, norm: linf, steps: 3, weight: 6, lam: [0.1]}
  hessian-paper:
    penalty: hessian
    lam: {mnist: [1]}
    estimator: {method: ascent, start: random, hvps: 11, step_size: 1}
"""

OWN_PENALTY = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F

from input_hessian.penalties import Objective, Penalty


@dataclass(frozen=True)
class LogitPenalty(Penalty):
    """``ell + lam ||z||``."""

    lam: float
    norm: Literal["l1", "l2"] = "l2"

    def __post_init__(self):
        if self.lam > 8:
            raise ValueError(f"lam: expected at most 8, got {self.lam:g}")

    def __call__(self, model, images, labels, generator):
        logits = model(images)
        size = logits.norm(p=int(self.norm[1]), dim=1)
        return Objective(F.cross_entropy(logits, labels, reduction="none"), self.lam * size, logits)
'''


def merged(*changes):
    """Return what Snakemake makes of config.yaml and of files given by --configfile."""
    content = copy.deepcopy(FULL)
    for change in changes:
        update_config(content, yaml.safe_load(change))
    return content


def problems(*changes):
    """Return what is said of these changes, a line per problem."""
    with pytest.raises(UserError) as error:
        read_config(merged(*changes))
    head, *lines = str(error.value).splitlines()
    assert head == f"the configuration has {len(lines)} problem(s):"
    return lines


@pytest.mark.parametrize(
    "changes",
    [[], *([path.read_text()] for path in VARIED), [EVERY_PENALTY]],
    ids=["config", *(path.stem for path in VARIED), "every penalty"],
)
def test_every_configuration_is_valid(changes):
    config = read_config(merged(*changes))
    built = {
        name
        for dataset in config.datasets
        for name in config.trained_on(dataset)
        for lam in config.lam_texts(name, dataset).values()
        if build_penalty(**config.penalty(name, lam)).lam == lam
    }
    assert {"none", "hessian"} <= built


def test_names_of_configurations_differ():
    names = [FULL["name"], *(yaml.safe_load(path.read_text())["name"] for path in VARIED)]
    assert sorted(set(names)) == sorted(names)


def test_what_is_offered_is_what_the_library_has():
    for part, kind in ((module.Regularizer, "penalty"), (module.ModelSettings, "architecture")):
        described = TypeAdapter(part).json_schema()["properties"][kind]["description"]
        built_in = (ROOT / "src").joinpath(*PACKAGES[kind].split(".")).glob("[!_]*.py")
        offered = re.search(r"built-in one \((.*?)\)", described, re.DOTALL)[1].split(", ")
        assert set(offered) == {path.stem for path in built_in}
    mapping = SCHEMA["$defs"]["Evaluation"]["properties"]["attacks"]["items"]["discriminator"]
    assert set(mapping["mapping"]) == set(attacks.ATTACKS)
    mapping = SCHEMA["$defs"]["Recovery"]["properties"]["estimators"]["items"]["discriminator"]
    assert set(mapping["mapping"]) == set(estimators.METHODS)


def test_every_key_is_described():
    for name, part in {"Config": SCHEMA, **SCHEMA["$defs"]}.items():
        for key, entry in part["properties"].items():
            assert entry.get("description"), f"{name}.{key}"


def test_every_key_of_the_full_configuration_is_explained():
    explained = set()
    for line in (ROOT / "config.yaml").read_text().splitlines():
        if match := re.match(r"^[\s-]*([a-z0-9_]+):.*#", line):
            explained.add(match[1])
    everywhere = set(SCHEMA["properties"]) | set(FULL["model"]) | set(FULL["training"])
    everywhere -= {"model", "training", "evaluation", "datasets"}  # their parts are explained
    assert everywhere <= explained


def test_schema_for_editors_is_that_of_the_code_and_each_file_points_to_it():
    path = ROOT / "workflow/schemas/config.schema.json"
    assert json.loads(path.read_text()) == SCHEMA, (
        f"write it anew: python -m {module.__name__} > {path.relative_to(ROOT)}"
    )
    for file in (ROOT / "config.yaml", *VARIED):
        pointer = file.read_text().splitlines()[0].removeprefix("# yaml-language-server: $schema=")
        assert (file.parent / pointer).samefile(path)


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *VARIED], ids=lambda path: path.name)
def test_editors_accept_every_configuration(path):
    jsonschema.Draft202012Validator(SCHEMA).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("{}", True),
        ("regularizers: {hessian: {lam: [0.5]}, gradient: null}", True),
        ("regularizers: {hessian: {lam: {mnist: [0.5], fashion_mnist: null}}}", True),
        ("regularizers: {hessian: {lam: 0.5}}", False),
        ("regularizers: {hessian: {lam: {mnist: 0.5}}}", False),
        ("regularizers: {hessian: {lam: {mnist: []}}}", False),
        ("regularizers: {hessian: {step_cost: 0.9}}", False),
        ("comparison: {families: {gradient penalty: null, mine: [gradient]}}", True),
        ("comparison: {families: {mine: gradient}}", False),
        ("selection: null", True),
        ("selection: {images: 10}", True),
        ("model: {depth: 3}", True),  # options of an architecture are its own
        ("training: {epoch: 3}", False),
        ("regularizers: {My penalty: {lam: [1]}}", False),
        ("seeds: 1", False),
        ("seeds: [1, 1]", False),
        ("recovery: {estimators: [{method: power}]}", False),  # lists are replaced, so complete
        ("evaluation: {attacks: [{attack: fgsm, norm: linf, steps: 3}]}", False),
    ],
)
def test_editors_see_what_a_file_with_changes_may_say(text, accepted):
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(yaml.safe_load(text)) == accepted


# What a user writes into a file of his own, and what is said about it.
CASES = {
    "unknown key": ("lamda: [1]", ["top level: unknown key 'lamda'", "allowed are name, seeds"]),
    "misspelt key": (
        "training: {epoch: 3}",
        ["training: unknown key 'epoch' (did you mean epochs?)"],
    ),
    "misspelt key of an entry": (
        "datasets: {mnist: {headlines: {}}}",
        ["datasets.mnist: unknown key 'headlines' (did you mean headline?); allowed are epsilons,"],
    ),
    "negative loss of accuracy": (
        "datasets: {mnist: {max_clean_loss: -0.5}}",
        ["datasets.mnist.max_clean_loss: got -0.5, expected at least 0"],
    ),
    "loss of accuracy in the selection": (
        "selection: {max_clean_loss: 2}",
        ["selection: unknown key 'max_clean_loss'; allowed are images"],
    ),
    "misspelt norm": (
        "datasets: {mnist: {headline: {l3: [1]}}}",
        ["datasets.mnist.headline: unknown key 'l3'", "allowed are linf, l2"],
    ),
    "misspelt key of an optional section": (
        "recovery: {draw: 3}",
        ["recovery: unknown key 'draw' (did you mean draws?)"],
    ),
    "unknown penalty": (
        "regularizers: {gradient: {penalty: gradiant}}",
        [
            "regularizers.gradient.penalty: ",
            "got 'gradiant'",
            "gradient, hessian",
            "mean gradient?",
        ],
    ),
    "unknown data set": (
        "datasets: {mnits: {epsilons: {linf: [1], l2: [1]}, headline: {linf: [1], l2: [1]}}}",
        ["expected one of cifar10, digits, fashion_mnist, mnist", "mean mnist?", "`file: "],
    ),
    "unknown architecture": (
        "model: {architecture: rnn}",
        ["model.architecture: expected one of cnn, mlp, resnet, or the path", "got 'rnn'"],
    ),
    "unknown attack": (
        "evaluation: {attacks: [{attack: pdg, norm: l2}, {attack: ddn, norm: l2}]}",
        ['evaluation.attacks[0].attack: got "pdg", expected one of fgsm, ', "mean pgd?"],
    ),
    "attack without a name": (
        "evaluation: {attacks: [{attack: ddn, norm: l2}, {norm: l2}]}",
        ["evaluation.attacks[1]: missing attack; add the line `attack: ...`"],
    ),
    "lam as a text": (
        "regularizers: {gradient: {lam: [1e-3]}}",
        ['regularizers.gradient.lam[0]: got "1e-3", expected a number', "write 0.001, without"],
    ),
    "negative lam": (
        "regularizers: {adversarial-l2: {lam: [1, -1]}}",
        ["regularizers.adversarial-l2.lam: got [1, -1], expected numbers greater than 0"],
    ),
    "negative lam on one dataset": (
        "regularizers: {adversarial-l2: {lam: {mnist: [1, -1]}}}",
        ["regularizers.adversarial-l2.lam.mnist: got [1, -1], expected numbers greater than 0"],
    ),
    "lam that is no list": (
        "regularizers: {gradient: {lam: 1}}",
        ["regularizers.gradient.lam: got 1, expected a list; write [1]"],
    ),
    "lam that is no list on one dataset": (
        "regularizers: {gradient: {lam: {mnist: 1, fashion_mnist: [1]}}}",
        ["regularizers.gradient.lam.mnist: got 1, expected a list; write [1]"],
    ),
    "lam as a text on one dataset": (
        "regularizers: {adversarial-l2: {lam: {mnist: [1, 1e-3]}}}",
        ['regularizers.adversarial-l2.lam.mnist[1]: got "1e-3", expected a number; write 0.001,'],
    ),
    "empty lam": (
        "regularizers: {gradient: {lam: []}}",
        ["regularizers.gradient.lam: the list is empty, expected at least one entry"],
    ),
    "empty lam on one dataset": (
        "regularizers: {adversarial-l2: {lam: {mnist: []}}}",
        ["regularizers.adversarial-l2.lam.mnist: the list is empty, expected at least one entry"],
    ),
    "lam twice on one dataset": (
        "regularizers: {adversarial-l2: {lam: {mnist: [1, 1]}}}",
        ["regularizers.adversarial-l2.lam.mnist: got [1, 1], expected no entry twice"],
    ),
    "lam with one path on one dataset": (
        "regularizers: {adversarial-l2: {lam: {mnist: [1, 1.0000000001]}}}",
        ["regularizers.adversarial-l2.lam.mnist: got [1.0, 1.0000000001], expected values that"],
    ),
    "lam of a misspelt dataset": (
        "regularizers: {adversarial-l2: {lam: {mnits: [1]}}}",
        [
            "regularizers.adversarial-l2.lam: got 'mnits', expected names of",
            "(did you mean mnist?)",
        ],
    ),
    "step cheaper than plain training": (
        "regularizers: {gradient: {step_cost: 0.5}}",
        ["regularizers.gradient.step_cost: got 0.5, expected at least 1"],
    ),
    "no lam": (
        "regularizers: {adversarial-l2: {lam: [0]}}",
        ["regularizers.adversarial-l2.lam: got [0], expected numbers greater than 0"],
    ),
    "lam of plain training": (
        "regularizers: {none: {lam: [1]}}\ncertificate: null",
        ["regularizers.none.lam[0]: expected 0 for plain training, got 1"],
    ),
    "missing lam": (
        "regularizers: {mine: {penalty: gradient}}",
        ["regularizers.mine: missing lam; add the line `lam: [...]`"],
    ),
    "infinite lam": (
        "regularizers: {gradient: {lam: [.inf]}}",
        ["regularizers.gradient.lam[0]: got Infinity, expected a number"],
    ),
    "negative epsilon": (
        "datasets: {mnist: {epsilons: {linf: [-0.1, 0.2]}}}",
        ["datasets.mnist.epsilons.linf[0]: got -0.1, expected a number greater than 0"],
    ),
    "regularizer on an unknown dataset": (
        "regularizers: {cure: {lam: {mnist: [1], cifar: [1]}}}",
        [
            "regularizers.cure.lam: got 'cifar', expected names of datasets: mnist, fashion_mnist; ",
            "`cure: null` leaves the regularizer out",
        ],
    ),
    "radius of 255 grey levels": (
        "datasets: {mnist: {epsilons: {linf: [0.1, 0.2, 8]}}}",
        ["datasets.mnist.epsilons.linf: got 8, expected at most 1, ", "[0, 1]; ", "write 0.03137"],
    ),
    "radius longer than an image": (
        "datasets: {mnist: {epsilons: {l2: [1, 2, 76.5]}}}",
        ["datasets.mnist.epsilons.l2: got 76.5, expected at most 28, ", "write 0.3"],
    ),
    "training attacks of 255 grey levels": (
        "regularizers: {adversarial-l2: {norm: linf, lam: [8]}}",
        ["regularizers.adversarial-l2.lam: got 8, expected at most 1, ", "write 0.03137"],
    ),
    "training attacks of 255 grey levels on one dataset": (
        "regularizers: {adversarial-linf: {lam: {fashion_mnist: [0.1, 8]}}}",
        ["regularizers.adversarial-linf.lam.fashion_mnist: got 8, expected at most 1, ", "0.03137"],
    ),
    "attacks of TRADES of 255 grey levels": (
        "regularizers: {trades: {lam: [8]}}",
        ["regularizers.trades.lam: got 8, expected at most 1, ", "write 0.03137"],
    ),
    "number in quotes": (
        "training: {epochs: '1'}",
        ['training.epochs: got "1", expected a whole number; write 1, without quotes'],
    ),
    "name too long for a file system": (
        f"name: {'n' * 300}",
        ["name: got 300 characters, expected at most 100: it is part of the names of files"],
    ),
    "name of an entry too long for a file system": (
        f"regularizers: {{{'n' * 300}: {{penalty: gradient, lam: [1]}}}}",
        ["regularizers: got 300 characters, expected at most 100"],
    ),
    "unsorted epsilons": (
        "datasets: {mnist: {epsilons: {l2: [2, 1]}}}",
        ["datasets.mnist.epsilons.l2: got [2, 1], expected increasing order; write [1, 2]"],
    ),
    "epsilons that tables write alike": (
        "datasets: {mnist: {epsilons: {l2: [0.5, 1, 1.5, 2, 2.0000001]}}}",
        ["datasets.mnist.epsilons.l2: got [0.5, 1, 1.5, 2, 2.0000001]", "first six digits"],
    ),
    "unsorted headline": (
        "datasets: {fashion_mnist: {headline: {l2: [1, 0.5]}}}",
        ["datasets.fashion_mnist.headline.l2: got [1, 0.5], expected increasing", "write [0.5, 1]"],
    ),
    "radius twice": (
        "datasets: {mnist: {headline: {l2: [2, 2]}}}",
        ["l2: got [2, 2]", "write [2]"],
    ),
    "headline of one norm": (
        "datasets: {mnist: {headline: {l2: null}}}",
        ["datasets.mnist.headline: missing l2; add the line `l2: ...`"],
    ),
    "name of the control": (
        "regularizers: {control: {penalty: gradient, lam: [1]}}",
        ["regularizers.control: this name is that of the masking checks' control"],
    ),
    "headline not attacked": (
        "datasets: {mnist: {headline: {l2: [1.25]}}}",
        ["datasets.mnist.headline.l2: got 1.25, expected values of epsilons.l2, [0.5, 1, 1.5, 2]"],
    ),
    "empty list": ("seeds: []", ["seeds: the list is empty, expected at least one entry"]),
    "no attack": ("evaluation: {attacks: []}", ["evaluation.attacks: the list is empty"]),
    "seed twice": ("seeds: [1, 1]", ["seeds: got [1, 1], expected no entry twice"]),
    "negative seed": ("seeds: [-1]", ["seeds[0]: got -1, expected at least 0"]),
    "seed that is no seed": ("seeds: [4294967296]", ["seeds[0]: got 4294967296, expected at most"]),
    "no list": ("seeds: 1", ["seeds: got 1, expected a list"]),
    "no mapping": ("training: 4", ["training: got 4, expected a mapping"]),
    "model that is no mapping": ("model: cnn", ['model: got "cnn", expected a mapping']),
    "missing section": ("training: null", ["top level: missing training; add the line `training:"]),
    "missing key": ("masking: {images: null}", ["masking: missing images; add the line `images:"]),
    "fraction of an epoch": ("training: {epochs: 1.5}", ["got 1.5, expected a whole number"]),
    "whole number with a point": ("seeds: [1.0]", ["seeds[0]: got 1.0, expected a whole"]),
    "truth as a number": ("training: {epochs: true}", ["got true, expected a whole number"]),
    "number that is none": (
        "training: {learning_rate: .nan}",
        ["training.learning_rate: got NaN, expected a number"],
    ),
    "quoted truth": (
        "regularizers: {gradient: {squared: 'no'}}",
        ['regularizers.gradient.squared: got "no", expected true or false'],
    ),
    "name that is no path": ("name: my run/1", ['name: got "my run/1", expected lower-case']),
    "name with a line break": ('name: "abc\\n"', ["name: ", "expected lower-case"]),
    "name of an entry that is no path": (
        "regularizers: {My penalty: {penalty: gradient, lam: [1]}}",
        ['regularizers: got "My penalty", expected lower-case'],
    ),
    "file that is no module": (
        "datasets: {mnist: {file: mnist.csv}}",
        ['datasets.mnist.file: got "mnist.csv", expected the path of a file that ends in .py'],
    ),
    "step size without ascent": (
        "regularizers: {hessian: {estimator: {step_size: 1}}}",
        ["regularizers.hessian.estimator.step_size: needed by ascent alone, got 1.0 with lanczos"],
    ),
    "step size without ascent in recovery": (
        "recovery: {estimators: [{method: power, start: random, step_size: 1}]}",
        ["recovery.estimators[0]: unknown key 'step_size'; allowed are method, start"],
    ),
    "ascent without a step size": (
        "recovery: {estimators: [{method: ascent, start: random}]}",
        ["recovery.estimators[0]: missing step_size; add the line `step_size: ...`"],
    ),
    "misspelt option of the estimator": (
        "regularizers: {hessian: {estimator: {hvp: 3}}}",
        ["regularizers.hessian.estimator: unknown key 'hvp' (did you mean hvps?); allowed are met"],
    ),
    "misspelt option of the network": (
        "model: {widht: 3}",
        ["model: unknown key 'widht' (did you mean width?); allowed are architecture, width, act"],
    ),
    "network of no width": ("model: {width: 0}", ["model.width: got 0, expected a number greater"]),
    "activation that is none": (
        "model: {activation: tanh}",
        ['model.activation: got "tanh", expected one of softplus, relu'],
    ),
    "recovery of an unknown regularizer": (
        "recovery: {regularizer: hesian}",
        ["recovery.regularizer: got 'hesian', expected a name of regularizers: none, gradient"],
    ),
    "moment after the end": (
        "recovery: {progress: [2]}",
        ["recovery.progress[0]: got 2, expected at most 1"],
    ),
    "comparison with what is not trained": (
        "comparison: {reference: hesian}",
        ["comparison.reference: got 'hesian', expected a name of regularizers: none", "hessian?"],
    ),
    "comparison with what is trained on one dataset": (
        "comparison: {reference: hessian-paper}",
        ["comparison.reference: got 'hessian-paper', which is not trained on fashion_mnist"],
    ),
    "comparison without a reference": (
        "comparison: {reference: null}",
        ["comparison: missing reference; add the line `reference: ...`"],
    ),
    "family with a misspelt regularizer": (
        "comparison: {families: {gradient penalty: null, mine: [gradient, gradiant]}}",
        ["comparison.families.mine[1]: got 'gradiant', expected a name of", "mean gradient?)"],
    ),
    "family with the reference": (
        "comparison: {families: {mine: [hessian]}}",
        ["comparison.families.mine[0]: hessian is the reference or stands in another family"],
    ),
    "family with what another family has": (
        "comparison: {families: {others: [gradient]}}",
        ["comparison.families.others[0]: gradient is the reference or stands in another family"],
    ),
    "baseline with a cost": (
        "regularizers: {none: {step_cost: 2}}",
        ["regularizers.none.step_cost: the baseline's step is the unit; delete the line"],
    ),
    "family with a regularizer twice": (
        "comparison: {families: {mine: [gradient, gradient]}}",
        ['comparison.families.mine: got ["gradient", "gradient"], expected no entry twice'],
    ),
    "family that is no list": (
        "comparison: {families: {mine: gradient}}",
        ['comparison.families.mine: got "gradient", expected a list; write ["gradient"]'],
    ),
    "families that are no mapping": (
        "comparison: {families: [gradient]}",
        ['comparison.families: got ["gradient"], expected a mapping'],
    ),
    "comparison without a selection": (
        "selection: null\nstronger_attacks: null",
        ["comparison: compares selected cells, but there is no selection", "`comparison: null`"],
    ),
    "stronger attacks without a selection": (
        "selection: null\ncomparison: null",
        [
            "stronger_attacks: attacks selected networks, but there is no selection",
            "`stronger_attacks: null`",
        ],
    ),
    "lam with one path": (
        "regularizers: {hessian: {lam: [0.1, 0.3, 1, 3, 0.1000000001]}}",
        ["regularizers.hessian.lam: got [0.1, 0.3, 1.0", "differ in their first six digits"],
    ),
    "lam twice": (
        "regularizers: {hessian: {lam: [1, 3, 3.0]}}",
        ["regularizers.hessian.lam: got [1, 3, 3.0], expected no entry twice"],
    ),
    "recovery with what is trained on one dataset": (
        "recovery: {regularizer: hessian-paper, lam: [1]}",
        ["recovery.regularizer: got 'hessian-paper', which is not trained on fashion_mnist"],
    ),
    "baseline on one dataset": (
        "regularizers: {none: {lam: {mnist: [0]}}}\ncertificate: null",
        ["regularizers.none.lam: the baseline is trained on every data set; delete the line"],
    ),
    "baseline under another name": (
        "regularizers: {plain: {penalty: none}}",
        ["regularizers.plain.penalty: got 'none', expected the name none", "it is the baseline"],
    ),
    "another penalty as the baseline": (
        "regularizers: {none: {penalty: gradient, lam: [1]}}\ncertificate: null",
        ["regularizers.none.penalty: got 'gradient', expected the name none", "it is the baseline"],
    ),
    "no baseline": (
        "regularizers: {none: null}\ncertificate: null",
        ["regularizers: expected the baseline among them", "`none: {penalty: none}`"],
    ),
    "more images than there are": (
        "evaluation: {images: 10001}",
        ["evaluation.images: got 10001, expected at most the 10000 test images of mnist"],
    ),
    "more validation images than there are": (
        "selection: {images: 5001}",
        ["selection.images: got 5001, expected at most the 5000 validation images of mnist"],
    ),
    "curvature of images not attacked": (
        "curvature: {images: 10001}",
        ["curvature.images: got 10001, expected at most evaluation.images, 1000"],
    ),
    "path of images not attacked": (
        "path: {images: 1001}",
        ["path.images: got 1001, expected at most evaluation.images, 1000"],
    ),
    "path of one point": ("path: {points: 1}", ["path.points: got 1, expected at least 2"]),
    "recovery on more images than there are": (
        "recovery: {images: 55001}",
        ["recovery.images: got 55001, expected at most the 55000 train images of mnist"],
    ),
    "stronger attacks on images not attacked": (
        "stronger_attacks: {images: 1001}",
        ["stronger_attacks.images: got 1001, expected at most evaluation.images, 1000"],
    ),
    "masking checks on images not attacked": (
        "masking: {images: 1001}",
        ["masking.images: got 1001, expected at most evaluation.images, 1000"],
    ),
    "certificate of a network that has none": (
        "certificate: {model: {architecture: cnn}}",
        ["certificate.model: expected fully connected layers with softplus", "got Conv2d"],
    ),
    "certificate of a network without curvature": (
        "certificate: {model: {activation: relu}}",
        ["certificate.model: expected fully connected layers with softplus", "ReLU"],
    ),
    "certificate of a lam that a penalty refuses": (
        "certificate: {regularizers: [{name: none, lam: 1}]}",
        ["certificate.lam[0]: expected 0 for plain training, got 1"],
    ),
    "certificate of an unknown regularizer": (
        "certificate: {regularizers: [{name: hesian, lam: 1}]}",
        ["certificate.regularizers[0].name: got 'hesian', expected a name of regularizers: none"],
    ),
    "certificate without its attack": (
        "evaluation: {attacks: [{attack: fgsm, norm: l2}]}\npath: null",
        [
            "certificate: ",
            "ddn, which is not among evaluation.attacks; add `{attack: ddn, norm: l2",
        ],
    ),
    "certificate whose attack is on the selected networks alone": (
        "evaluation: {attacks: [{attack: fgsm, norm: l2}]}\n"
        "stronger_attacks: {attacks: [{attack: ddn, norm: l2}]}\npath: null",
        ["certificate: ", "ddn, which is not among evaluation.attacks"],
    ),
    "path without its attack": (
        "evaluation: {attacks: [{attack: fgsm, norm: l2}]}\ncertificate: null",
        [
            "path: takes the perturbations of the attack ddn, which is not among evaluation.attacks; ",
            "add `{attack: ddn, norm: l2}` to these, or leave this section out with `path: null`",
        ],
    ),
    "attack stated twice": (
        "evaluation: {attacks: [{attack: ddn, norm: l2}, {attack: ddn, norm: l2, steps: 5}]}",
        ["evaluation.attacks[1]: the attack ddn with norm l2 stands above already"],
    ),
    "stronger attack stated twice": (
        "stronger_attacks: {attacks: [{attack: fab-t, norm: l2}, {attack: fab-t, norm: l2}]}",
        ["stronger_attacks.attacks[1]: the attack fab-t with norm l2 stands above already"],
    ),
    "minimal-norm attack of another norm": (
        "evaluation: {attacks: [{attack: ddn, norm: linf}]}",
        ['evaluation.attacks[0].norm: got "linf", expected l2'],
    ),
    "option of another attack": (
        "stronger_attacks: {attacks: [{attack: fab-t, norm: linf, steps: 3}]}",
        ["stronger_attacks.attacks[0]: unknown key 'steps'; allowed are attack, norm"],
    ),
    "step that is none": (
        "regularizers: {cure: {step: 0}}",
        ["regularizers.cure.step: expected a positive, finite length, got 0"],
    ),
    "infinite option of a penalty": (
        "regularizers: {cure: {step: .inf}}",
        ["regularizers.cure.step: got inf, expected a finite number"],
    ),
    "infinite option of an estimator": (
        "regularizers: {hessian: {estimator: {method: ascent, step_size: .inf}}}",
        ["regularizers.hessian.estimator.step_size: got inf, expected a finite number"],
    ),
    "infinite option of a network": (
        "model: {beta: .inf}",
        ["model.beta: got inf, expected a finite number"],
    ),
    "half a projection": (
        "regularizers: {jacobian: {n_proj: 1.5}}",
        ["regularizers.jacobian.n_proj: got 1.5, expected a whole number"],
    ),
    "option of another penalty": (
        "regularizers: {jacobian: {squared: true}}",
        ["jacobian: unknown key 'squared'; allowed are penalty, lam, step_cost, n_proj"],
    ),
    "option that is a function": (
        "regularizers: {jacobian: {loss: focal}}",
        ["jacobian: unknown key 'loss'; allowed are penalty, lam, step_cost, n_proj, fraction"],
    ),
    "estimator of adversarial training": (
        "regularizers: {adversarial-l2: {estimator: {}}}",
        ["unknown key 'estimator'; allowed are penalty, lam, step_cost, norm, steps"],
    ),
    "norm that is none": (
        "regularizers: {adversarial-l2: {norm: l1}}",
        ['regularizers.adversarial-l2.norm: got "l1", expected one of linf, l2'],
    ),
    "attack of no steps": (
        "regularizers: {adversarial-l2: {steps: 0}}",
        ["regularizers.adversarial-l2.steps: expected at least 1, got 0"],
    ),
    "required option of a penalty": (
        "regularizers: {adversarial-l2: {norm: null}}",
        ["regularizers.adversarial-l2: missing norm; add the line `norm: ...`"],
    ),
    "missing penalty": (
        "regularizers: {hessian: {penalty: null}}",
        ["regularizers.hessian: missing penalty; add the line `penalty: ...`"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_name_key_value_and_what_is_allowed(case):
    change, expected = CASES[case]
    (line,) = problems(EVERY_PENALTY, change)  # one mistake, one message
    for text in expected:
        assert text in line


def test_all_problems_are_listed_at_once():
    lines = problems("seeds: []\ntraining: {epochs: 0, rate: 1}\nmodel: {architecture: null}")
    assert [line.partition(":")[0] for line in lines] == [
        "  - seeds",
        "  - model",
        "  - training.epochs",
        "  - training",
    ]
    lines = problems("regularizers: {hessian: {lam: [2], squared: 1}}\nmodel: {width: 1.5}")
    assert {line.partition(":")[0] for line in lines} == {
        "  - regularizers.hessian.squared",
        "  - model.width",
    }


def test_one_lam_of_one_penalty_on_one_dataset_is_a_short_file():
    mine = """
name: mine
datasets: {fashion_mnist: null}
regularizers:
  gradient: null
  gradient-sampled: null
  gradient-squared: null
  adversarial-linf: null
  adversarial-l2: null
  hessian: {lam: [0.5]}
recovery: null
certificate: null
"""
    assert len(mine.strip().splitlines()) <= 12
    jsonschema.Draft202012Validator(SCHEMA).validate(yaml.safe_load(mine))
    config = read_config(merged(mine))
    assert config.name == "mine"
    assert list(config.datasets) == ["mnist"]
    assert config.trained_on("mnist") == ["none", "hessian"]
    assert config.penalty("hessian", 0.5) == {
        "penalty": "hessian",
        "lam": 0.5,
        "squared": False,
        "fraction": 0.125,
        "estimator": {"method": "lanczos", "start": "gradient", "hvps": 4},
    }
    assert config.recovery is None
    assert config.certificate is None


def test_all_that_is_optional_can_be_left_out():
    sections = (
        "selection",
        "stronger_attacks",
        "masking",
        "curvature",
        "path",
        "cost",
        "recovery",
        "comparison",
        "certificate",
    )
    without = "\n".join(f"{section}: null" for section in sections)
    config = read_config(
        merged(without, "evaluation: {attacks: [{attack: fgsm, norm: l2}]}\nmirror: null")
    )
    assert not any(getattr(config, section) for section in sections)
    assert config.attacks == [{"attack": "fgsm", "norm": "l2"}]
    assert config.more_attacks == []
    assert not set(sections) & set(config.result_settings())


def test_settings_are_plain_and_as_written():
    full = merged(EVERY_PENALTY)
    config = read_config(full)
    everywhere = [*FULL["regularizers"], *("taylor", "cure", "jacobian", "trades")]
    assert config.trained_on("fashion_mnist") == everywhere
    everywhere.remove("gradient-squared")  # has lam for the other data set alone
    assert config.trained_on("mnist") == [*everywhere, "hessian-paper"]
    assert config.lam_texts("hessian", "mnist") == {"0.3": 0.3, "1": 1, "3": 3, "10": 10}
    assert config.lam_texts("none", "mnist") == {"0": 0}
    assert config.lam_texts("adversarial-linf", "mnist") == {"0.1": 0.1, "0.2": 0.2}
    radii = {"0.025": 0.025, "0.05": 0.05, "0.1": 0.1}
    assert config.lam_texts("adversarial-linf", "fashion_mnist") == radii
    assert config.lam_texts("hessian-paper", "fashion_mnist") == {}
    assert config.lam("adversarial-linf", "0.05") == 0.05  # of the second data set
    assert config.penalty("none", 0.0) == {"penalty": "none", "lam": 0}
    assert config.penalty("cure", 1.0) == {"penalty": "cure", "lam": 1, "step": 1}
    assert config.model == full["model"]
    assert config.headline == {name: entry["headline"] for name, entry in full["datasets"].items()}
    assert config.datasets["mnist"].epsilons.model_dump() == full["datasets"]["mnist"]["epsilons"]
    assert config.attacks == full["evaluation"]["attacks"]
    assert config.more_attacks == full["stronger_attacks"]["attacks"]
    assert config.recovery.model_dump() == full["recovery"]
    assert config.comparison.model_dump() == full["comparison"]
    assert config.path.model_dump() == full["path"]
    assert {name: entry.max_clean_loss for name, entry in config.datasets.items()} == {
        name: entry["max_clean_loss"] for name, entry in full["datasets"].items()
    }
    assert {attack["norm"] for attack in config.more_attacks} == {"linf", "l2"}
    one_norm = merged(EVERY_PENALTY, "evaluation: {attacks: [{attack: ddn, norm: l2}]}")
    assert {attack["norm"] for attack in read_config(one_norm).more_attacks} == {"l2"}
    settings = config.result_settings()
    assert yaml.safe_load(yaml.safe_dump(settings)) == settings
    assert set(full) - set(settings) == {"device", "mirror", "networks"}  # of which there are none
    for name in ("gradient", "adversarial-linf"):
        assert settings["regularizers"][name] == full["regularizers"][name]


def test_every_regularizer_trains_for_the_time_of_plain_training():
    text = "regularizers: {trades: {step_cost: 1000}}"
    config = read_config(merged(EVERY_PENALTY, text), check_plugins=False)
    epochs = {name: config.training_of(name)["epochs"] for name in config.regularizers}
    # docs/protocol.md; without a cost, as many as plain training, and never none
    stated = {"gradient": 8, "hessian": 9, "adversarial-linf": 4, "adversarial-l2": 4}
    unstated = {"none": 16, "taylor": 16, "cure": 16, "jacobian": 16, "hessian-paper": 16}
    assert epochs | stated | unstated | {"trades": 1} == epochs
    assert config.training_of("hessian") | {"epochs": 16} == FULL["training"]


def test_what_belongs_to_an_entry_left_out_is_left_out_with_it():
    change = """
datasets: {mnist: null, digits: {epsilons: {linf: [1], l2: [1]}, headline: {linf: [1], l2: [1]}}}
regularizers: {gradient: null, adversarial-l2: {lam: {digits: [1]}}}
comparison:
  families:
    gradient penalty: [gradient]
    adversarial training: null
    mine: [gradient, adversarial-l2]
certificate: null
"""
    content = merged(EVERY_PENALTY, change)
    before = copy.deepcopy(content)
    config = read_config(content, check_plugins=False)
    assert content == before
    assert config.regularizers["adversarial-linf"].lam == {"fashion_mnist": [0.025, 0.05, 0.1]}
    every = ["taylor", "cure", "jacobian", "trades"]
    assert config.trained_on("digits") == ["none", "hessian", "adversarial-l2", *every]
    assert config.comparison.families == {"mine": ["adversarial-l2"]}
    # Of no data set that is left: trained nowhere, and no error.
    content = merged(EVERY_PENALTY, change, "datasets: {fashion_mnist: null}")
    nowhere = read_config(content, check_plugins=False)
    assert nowhere.regularizers["adversarial-linf"].lam == {}
    assert nowhere.trained_on("digits") == config.trained_on("digits")
    # What a file itself leaves out of the lam of the files before it.
    one = merged("regularizers: {adversarial-l2: {lam: {fashion_mnist: null}}}")
    assert "adversarial-l2" not in read_config(one, check_plugins=False).trained_on("fashion_mnist")


def test_the_order_of_options_changes_nothing():
    option = "regularizers: {hessian: {estimator: null}}", "model: null"
    one = "{regularizers: {hessian: {estimator: {hvps: 3, method: power}}}, model: {width: 2, architecture: mlp}}"
    other = "{model: {architecture: mlp, width: 2}, regularizers: {hessian: {estimator: {method: power, hvps: 3}}}}"
    read = [read_config(merged(*option, change)) for change in (one, other)]
    for settings in (
        lambda config: config.model,
        lambda config: config.penalty("hessian", 1.0),
    ):
        first, second = (yaml.safe_dump(settings(config), sort_keys=False) for config in read)
        assert first == second


def test_attacks_have_defaults():
    text = "evaluation: {attacks: [{attack: pgd, norm: l2}, {attack: ddn, norm: l2}]}"
    assert read_config(merged(text)).attacks == [
        {"attack": "pgd", "norm": "l2", "steps": 40, "restarts": 1},
        {"attack": "ddn", "norm": "l2", "steps": 100},
    ]


def test_penalty_in_a_file_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_penalty.py").write_text(OWN_PENALTY)
    monkeypatch.chdir(tmp_path)
    mine = "regularizers: {logits: {penalty: my_penalty.py, lam: [1, 2], norm: l1}}"
    config = read_config(merged(mine))
    assert build_penalty(**config.penalty("logits", 2.0)).norm == "l1"
    (line,) = problems(mine.replace("norm: l1", "norm: l3"))
    assert 'regularizers.logits.norm: got "l3", expected one of l1, l2' in line
    (line,) = problems(mine.replace("norm: l1", "nrm: l1"))
    assert "regularizers.logits: unknown key 'nrm' (did you mean norm?)" in line
    few = mine.replace("[1, 2]", "{mnist: [1], fashion_mnist: [2, 1]}")
    assert read_config(merged(few)).lam_texts("logits", "mnist") == {"1": 1}
    for refused, where in (
        (mine.replace("[1, 2]", "[1, 9]"), "lam[1]"),
        (few.replace("[2, 1]", "[2, 9]"), "lam.fashion_mnist[1]"),
    ):
        (line,) = problems(refused)
        assert line == f"  - regularizers.logits.{where}: expected at most 8, got 9"
    (line,) = problems(mine.replace("my_penalty", "your_penalty"))
    assert "regularizers.logits.penalty: " in line
    assert "your_penalty.py: no such file" in line


def test_network_and_data_in_files_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "linear.py").write_text(
        "from torch import nn\n"
        "def build(image_shape, classes, *, bias=True):\n"
        "    channels, height, width = image_shape\n"
        "    assert channels == 3, 'expected colour images'\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * height * width, classes, bias))\n"
    )
    (tmp_path / "colours.py").write_text(
        "from types import SimpleNamespace\n"
        "sizes = {'train': 30, 'validation': 250, 'test': 200}\n"
        "DATASET = SimpleNamespace(sizes=sizes, image_shape=(3, 4, 4), class_names=('a', 'b'))\n"
    )
    monkeypatch.chdir(tmp_path)
    radii = "{linf: [0.1], l2: [1]}"
    data = f"datasets: {{colours: {{file: colours.py, epsilons: {radii}, headline: {radii}}}}}"
    model = "model: {architecture: linear.py, width: null, activation: null, beta: null}"
    small = "evaluation: {images: 200}\nselection: {images: 250}\nstronger_attacks: {images: 200}"
    lines = problems(EVERY_PENALTY, data, model, small)
    assert len(lines) == 3
    assert "recovery.images: got 256, expected at most the 30 train images of colours" in lines[0]
    assert "model: expected colour images" in lines[1]  # of MNIST's and Fashion-MNIST's shape
    assert "datasets.colours: has 2 classes, expected at least 4 for the attack apgd-t" in lines[2]
    few = (
        "datasets: {mnist: null, fashion_mnist: null}\nrecovery: {images: 30}\n"
        "evaluation: {images: 200, attacks: [{attack: ddn, norm: l2}]}\n"
        "selection: {images: 250}\nstronger_attacks: null"
    )
    config = read_config(merged(EVERY_PENALTY, data, model, few))
    assert config.dataset_file("colours") == "colours.py"
    assert config.model == {"architecture": "linear.py"}
    (line,) = problems(EVERY_PENALTY, data, model, few, "model: {width: 3}")
    assert "model: unknown key 'width'; allowed are architecture, bias" in line


def test_networks_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = {"architecture": "mlp", "width": 3, "image_shape": (1, 28, 28), "classes": 10}
    torch.save(build(**made).state_dict(), "mine.pt")
    network = "networks: {mine: {checkpoint: mine.pt, architecture: mlp, dataset: mnist}}"
    wide = "networks: {mine: {options: {width: 3}}}"
    config = read_config(merged(network, wide, "seeds: [4, 5]"))
    assert config.evaluated_on("mnist") == [*config.trained_on("mnist"), "mine"]
    assert config.evaluated_on("fashion_mnist") == config.trained_on("fashion_mnist")
    assert (config.seeds_of("mine"), config.seeds_of("none")) == ([4], [4, 5])
    assert (config.lam_texts("mine", "mnist"), config.lam("mine", "0")) == ({"0": 0.0}, 0.0)
    assert config.result_settings()["networks"]["mine"]["options"] == {"width": 3}
    assert "networks" not in read_config(merged(), check_plugins=False).result_settings()
    (line,) = problems(network)
    assert "  - networks.mine: mine.pt: expected 1.weight of shape (256, 784)" in line
    (line,) = problems(network, wide, "networks: {mine: {dataset: digits}}")
    assert "networks.mine.dataset: got 'digits', expected a name of datasets: mnist, " in line
    (line,) = problems(network, wide, "networks: {mine: {checkpoint: null}}")
    assert "networks.mine: missing checkpoint" in line
    (line,) = problems(network, wide, "comparison: {families: {mine: [mine]}}")
    assert "comparison.families.mine[0]: got 'mine', expected a name of regularizers" in line
    (line,) = problems(network.replace("{mine:", "{none:"), wide.replace("mine", "none"))
    assert "networks.none: this name is that of a regularizer" in line


def test_single_values_of_the_command_line():
    # What --config device=cpu cost= seeds=0 makes of them.
    config = read_config(merged("{device: cpu, cost: null}"))
    assert (config.device, config.cost) == ("cpu", None)
    (line,) = problems("seeds: 0")
    assert line.endswith("seeds: got 0, expected a list; write [0]")


def test_reading_without_plugins_imports_no_torch():
    code = (
        "import sys, yaml; from input_hessian.experiment.config import read_config; "
        "read_config(yaml.safe_load(open('config.yaml')), check_plugins=False); "
        "print(sorted({'torch', 'foolbox', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
