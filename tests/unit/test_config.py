"""The three configurations, the schema and the registries agree; bad input is explained."""

import copy
import re
import sys
from pathlib import Path

import pytest
import yaml

from input_hessian import curvature, regularizers
from input_hessian.experiment import attacks, datasets, models

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow"))

from validation import SCHEMA, TEST_IMAGES, VALIDATION_IMAGES, ConfigError, validate  # noqa: E402

CONFIGS = [ROOT / "config.yaml", *sorted((ROOT / "config").glob("*.yaml"))]
schema = yaml.safe_load(SCHEMA.read_text())


@pytest.fixture
def config():
    """The full experiment with every penalty: those of the demo, and one trained on one dataset."""
    full, demo = (
        yaml.safe_load((ROOT / name).read_text()) for name in ("config.yaml", "config/demo.yaml")
    )
    names = [entry["name"] for entry in full["regularizers"]]
    full["regularizers"] += [e for e in demo["regularizers"] if e["name"] not in names]
    ascent = {"method": "ascent", "start": "random", "hvps": 11, "step_size": 1}
    full["regularizers"].append(
        {"name": "hessian-paper", "penalty": "hessian", "squared": False, "datasets": ["mnist"]}
        | {"estimator": ascent, "lam": [1]}
    )
    return full


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_is_valid(path):
    validate(yaml.safe_load(path.read_text()))


def test_names_of_configurations_differ():
    names = [yaml.safe_load(path.read_text())["name"] for path in CONFIGS]
    assert sorted(set(names)) == sorted(names)


def test_schema_offers_exactly_what_the_library_has():
    properties = schema["properties"]
    model = properties["model"]["properties"]
    entry = properties["regularizers"]["items"]["properties"]
    attack = schema["$defs"]["attacks"]["items"]["properties"]
    assert set(entry["penalty"]["enum"]) == set(regularizers.REGULARIZERS)
    assert set(model["architecture"]["enum"]) == set(models.ARCHITECTURES)
    assert set(model["activation"]["enum"]) == set(models.ACTIVATIONS)
    assert set(attack["attack"]["enum"]) == set(attacks.ATTACKS)
    assert set(properties["datasets"]["items"]["properties"]["name"]["enum"]) == set(
        datasets.DATASETS
    )
    assert set(schema["$defs"]["method"]["enum"]) == set(curvature.METHODS)


@pytest.mark.parametrize(
    ("split", "sizes"), [("test", TEST_IMAGES), ("validation", VALIDATION_IMAGES)]
)
def test_number_of_images_is_that_of_the_datasets(split, sizes):
    assert {name: dataset.sizes[split] for name, dataset in datasets.DATASETS.items()} == sizes


def test_every_regularizer_of_every_configuration_can_be_built():
    for path in CONFIGS:
        for entry in yaml.safe_load(path.read_text())["regularizers"]:
            for lam in entry["lam"]:
                options = {k: v for k, v in entry.items() if k not in ("name", "lam", "datasets")}
                regularizers.build(lam=lam, **options)


def test_every_key_of_the_full_configuration_is_explained():
    explained = set()
    for line in (ROOT / "config.yaml").read_text().splitlines():
        if match := re.match(r"^ *(?:# (?=batch_cells))?[\s-]*([a-z0-9_]+):.*#", line):
            explained.add(match[1])
    everywhere = set(schema["properties"]) | set(schema["properties"]["model"]["properties"])
    everywhere |= set(schema["properties"]["training"]["properties"])
    everywhere -= {"model", "training", "evaluation", "datasets"}  # their parts are explained
    assert everywhere <= explained


def change(config, path, value):
    *parents, last = path
    for key in parents:
        config = config[key]
    config[last] = value


CASES = {
    "unknown key": (["lamda"], [1], ["top level: unknown key 'lamda'", "allowed are name, seeds"]),
    "misspelt key": (
        ["training", "epoch"],
        3,
        ["training: unknown key 'epoch' (did you mean epochs?)"],
    ),
    "unknown regularizer": (
        ["regularizers", 1, "penalty"],
        "gradiant",
        ['regularizers[1].penalty: got "gradiant"', "none, gradient, hessian", "mean gradient?"],
    ),
    "lam as a text": (
        ["regularizers", 1, "lam"],
        ["1e-3"],
        ['regularizers[1].lam[0]: got "1e-3"', "expected a number", "0.001"],
    ),
    "negative lam": (
        ["regularizers", 2, "lam"],
        [-1],
        ["regularizers[2].lam[0]: got -1, expected a number greater than 0"],
    ),
    "weight of plain training": (
        ["regularizers", 0, "lam"],
        [1],
        ["regularizers[0].lam: got [1], expected [0]"],
    ),
    "negative epsilon": (
        ["datasets", 0, "epsilons", "linf"],
        [-0.1],
        ["datasets[0].epsilons.linf[0]: got -0.1, expected a number greater than 0"],
    ),
    "regularizer on an unknown dataset": (
        ["regularizers", 1, "datasets"],
        ["cifar"],
        ["regularizers[1].datasets: got 'cifar', expected names of datasets: mnist, fashion_mnist"],
    ),
    "unsorted epsilons": (
        ["datasets", 0, "epsilons", "l2"],
        [2, 1],
        ["datasets[0].epsilons.l2: got [2, 1], expected increasing order; write l2: [1, 2]"],
    ),
    "unsorted headline": (
        ["datasets", 1, "headline", "l2"],
        [1, 0.5],
        ["datasets[1].headline.l2: got [1, 0.5], expected increasing order; write l2: [0.5, 1]"],
    ),
    "name of the control": (
        ["regularizers", 4, "name"],
        "control",
        ["regularizers[4]: got the name control"],
    ),
    "headline not attacked": (
        ["datasets", 0, "headline", "l2"],
        [1.25],
        ["datasets[0].headline.l2: got 1.25, expected values of epsilons.l2"],
    ),
    "empty list": (["seeds"], [], ["seeds: the list is empty, expected at least one entry"]),
    "seed twice": (["seeds"], [1, 1], ["seeds: got [1, 1], expected no entry twice"]),
    "no mapping": (["model"], "cnn", ['model: got "cnn", expected a mapping']),
    "fraction of an epoch": (["training", "epochs"], 1.5, ["got 1.5, expected a whole number"]),
    "quoted truth": (
        ["regularizers", 1, "squared"],
        "no",
        ['regularizers[1].squared: got "no", expected true or false'],
    ),
    "name that is no path": (["name"], "my run/1", ['name: got "my run/1", expected lower-case']),
    "step size without ascent": (
        ["regularizers", 2, "estimator", "step_size"],
        1.0,
        ["regularizers[2].estimator: step_size has no meaning", "delete the line"],
    ),
    "weight that is not trained": (
        ["recovery", "lam"],
        [0.7],
        ["recovery.lam: got 0.7, expected values of hessian's lam, [0.1, 0.3, 1, 3]"],
    ),
    "comparison with what is not trained": (
        ["comparison", "reference"],
        "hesian",
        ["comparison.reference: got 'hesian', expected a name of regularizers: none, gradient"],
    ),
    "comparison with what is trained on one dataset": (
        ["comparison", "reference"],
        "hessian-paper",
        ["comparison.reference: got 'hessian-paper', which is not trained on fashion_mnist"],
    ),
    "comparison without a reference": (
        ["comparison"],
        {},
        ["comparison: missing reference; add the line `reference: ...`"],
    ),
    "moment after the end": (
        ["recovery", "progress"],
        [2],
        ["recovery.progress[0]: got 2, expected at most 1"],
    ),
    "a list of numbers that is none": (["seeds"], [1.0], ["seeds[0]: got 1.0, expected a whole"]),
    "not a number": (
        ["training", "learning_rate"],
        float("nan"),
        ["training.learning_rate: got NaN, expected a number"],
    ),
    "truth as a number": (["training", "epochs"], True, ["got true, expected a whole number"]),
    "name with a line break": (["name"], "abc\n", ["expected lower-case"]),
    "weights with one path": (
        ["regularizers", 2, "lam"],
        [0.1, 0.3, 1, 3, 0.1000000001],
        ["differ in their first six digits"],
    ),
    "baseline under another name": (
        ["regularizers", 0, "name"],
        "plain",
        ["regularizers[0]: name 'plain' with penalty 'none'", "it is the baseline"],
    ),
    "more images than there are": (
        ["evaluation", "images"],
        10_001,
        ["evaluation.images: got 10001, expected at most the 10000 test images of mnist"],
    ),
    "certificate of a network that has none": (
        ["certificate", "model", "architecture"],
        "cnn",
        ['certificate.model.architecture: got "cnn", expected "mlp"'],
    ),
    "certificate of a weight that is not there": (
        ["certificate", "regularizers", 1, "lam"],
        0.7,
        ["certificate.regularizers[1].lam: got 0.7, expected a value of gradient's lam, [0.1, "],
    ),
    "certificate of an unknown regularizer": (
        ["certificate", "regularizers", 2, "name"],
        "hesian",
        ["certificate.regularizers[2].name: got 'hesian', expected a name of regularizers: none"],
    ),
    "attack stated twice": (
        ["evaluation", "attacks", 1],
        {"attack": "pgd", "norm": "l2", "steps": 5, "restarts": 1},
        ["the attack pgd with norm l2 stands 2 times"],
    ),
    "attack on the selected cells again": (
        ["evaluation", "selected_attacks", 1],
        {"attack": "apgd-t", "norm": "l2"},
        ["the attack apgd-t with norm l2 stands 2 times"],
    ),
    "minimal-norm attack of another norm": (
        ["evaluation", "attacks", 3, "norm"],
        "linf",
        ["evaluation.attacks[3].norm", "expected"],
    ),
    "no baseline": (
        ["regularizers"],
        [{"name": "hessian", "penalty": "gradient", "squared": False, "lam": [0.1, 1, 3]}],
        ["regularizers: expected the baseline among them", "{name: none, penalty: none, lam: [0]}"],
    ),
    "more validation images than there are": (
        ["selection", "images"],
        5001,
        ["selection.images: got 5001, expected at most the 5000 validation images of mnist"],
    ),
    "masking checks on images not attacked": (
        ["evaluation", "masking_images"],
        1001,
        ["evaluation.masking_images: got 1001, expected at most evaluation.images, "],
    ),
    "attack that others need is missing": (
        ["evaluation", "attacks", 3],
        {"attack": "fgsm", "norm": "l2"},
        ["evaluation.attacks: expected ddn with norm l2, which is missing"],
    ),
    "option of another attack": (
        ["evaluation", "attacks", 0, "steps"],
        3,
        ["evaluation.attacks[0]: unknown key 'steps'; allowed are attack, norm"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_errors_name_key_value_and_what_is_allowed(config, case):
    path, value, expected = CASES[case]
    change(config, path, value)
    with pytest.raises(ConfigError) as error:
        validate(config)
    for text in expected:
        assert text in str(error.value)
    # there, what refers to the attack or to the entries that were replaced is wrong as well
    if case not in ("attack stated twice", "baseline under another name", "no baseline"):
        assert str(error.value).count("\n  - ") == 1, "one mistake, one message"


@pytest.mark.parametrize(
    ("penalty", "key", "value", "message"),
    [
        ("cure", "step", 0, "step: got 0, expected a number greater than 0"),
        ("jacobian", "n_proj", 1.5, "n_proj: got 1.5, expected a whole number"),
        ("jacobian", "squared", True, "unknown key 'squared'; allowed are .*, n_proj"),
        ("adversarial", "norm", "l1", 'norm: got "l1", expected one of linf, l2'),
        ("adversarial", "steps", 0, "steps: got 0, expected at least 1"),
        ("adversarial", "estimator", {}, "unknown key 'estimator'; allowed are .*, norm, steps"),
    ],
)
def test_options_belong_to_their_penalty(config, penalty, key, value, message):
    i, entry = next((i, e) for i, e in enumerate(config["regularizers"]) if e["penalty"] == penalty)
    entry[key] = value
    with pytest.raises(ConfigError, match=rf"1 problem.*\n.*regularizers\[{i}\].*{message}"):
        validate(config)


@pytest.mark.parametrize(
    ("penalty", "key"), [("cure", "step"), ("jacobian", "n_proj"), ("adversarial", "norm")]
)
def test_options_of_a_penalty_are_required(config, penalty, key):
    entry = next(e for e in config["regularizers"] if e["penalty"] == penalty)
    del entry[key]
    with pytest.raises(ConfigError, match=rf"1 problem.*\n.*missing {key}"):
        validate(config)


def test_missing_keys_and_repeated_names(config):
    without = copy.deepcopy(config)
    del without["regularizers"][2]["estimator"]
    with pytest.raises(ConfigError, match=re.escape("regularizers[2]: missing estimator")):
        validate(without)
    config["regularizers"][1]["name"] = "hessian"
    with pytest.raises(ConfigError, match="the name 'hessian' is given 2 times"):
        validate(config)


def test_a_missing_penalty_is_one_problem(config):
    del config["regularizers"][2]["penalty"]
    with pytest.raises(ConfigError, match=r"1 problem.*\n.*missing penalty"):
        validate(config)


def test_all_problems_are_listed_at_once(config):
    config["seeds"] = []
    config["training"]["epochs"] = 0
    with pytest.raises(ConfigError, match=r"2 problem\(s\)"):
        validate(config)
