"""Check a configuration; say what is wrong in the terms of the YAML file that the user edits."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

SCHEMA = Path(__file__).parent / "schemas" / "config.schema.yaml"
TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a mapping (indented key: value lines)",
    "string": "a text",
}
# Images of each dataset, as in input_hessian.datasets (which takes seconds to import; a test
# compares them): an attacked subset cannot be larger.
TEST_IMAGES = {"digits": 400, "mnist": 10_000, "fashion_mnist": 10_000}
VALIDATION_IMAGES = {"digits": 200, "mnist": 5_000, "fashion_mnist": 5_000}
# The masking checks and the measurement of the radius use these attacks' records.
NEEDED_ATTACKS = [
    ("fgsm", "linf"),
    ("pgd", "linf"),
    ("pgd", "l2"),
    ("ddn", "l2"),
    ("apgd-ce", "linf"),
    ("apgd-t", "linf"),
    ("apgd-ce", "l2"),
    ("apgd-t", "l2"),
]


def _is_integer(checker, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker, value: Any) -> bool:
    return _is_integer(checker, value) or (isinstance(value, float) and math.isfinite(value))


# JSON Schema calls 3.0 an integer and lets NaN pass every bound.
Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)


class ConfigError(ValueError):
    """The configuration is not usable; the message names every problem."""


def validate(config: dict[str, Any]) -> None:
    """Raise :class:`ConfigError` naming every key that is wrong, its value and what is allowed."""
    schema = yaml.safe_load(SCHEMA.read_text())
    errors = sorted(Validator(schema).iter_errors(config), key=lambda e: [str(p) for p in e.path])
    # A dictionary, because jsonschema reports two missing keys of one mapping twice.
    problems = list(dict.fromkeys(_explain(error) for error in errors))
    problems = problems or list(_inconsistencies(config))
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigError(f"the configuration has {len(problems)} problem(s):\n{listed}")


def _explain(error: ValidationError) -> str:
    where = _name(error.absolute_path)
    value = error.instance
    got = f"got {json.dumps(value, default=str)}"
    match error.validator:
        case "additionalProperties":
            known = list(error.schema["properties"])
            unknown = [key for key in value if key not in known]
            hints = [_closest(key, known) for key in unknown]
            keys = ", ".join(f"{key!r}{hint}" for key, hint in zip(unknown, hints, strict=True))
            return f"{where}: unknown key {keys}; allowed are {', '.join(known)}"
        case "required":
            missing = [key for key in error.validator_value if key not in value]
            return f"{where}: missing {', '.join(missing)}; add the line `{missing[0]}: ...`"
        case "enum":
            allowed = [str(choice) for choice in error.validator_value]
            return f"{where}: {got}, expected one of {', '.join(allowed)}{_closest(value, allowed)}"
        case "const":
            return f"{where}: {got}, expected {json.dumps(error.validator_value)}"
        case "type":
            return f"{where}: {got}, expected {TYPES[error.validator_value]}{_hint(error)}"
        case "minItems":
            return f"{where}: the list is empty, expected at least one entry"
        case "uniqueItems":
            return f"{where}: {got}, expected no entry twice"
        case "minimum":
            return f"{where}: {got}, expected at least {error.validator_value}"
        case "maximum":
            return f"{where}: {got}, expected at most {error.validator_value}"
        case "exclusiveMinimum":
            return f"{where}: {got}, expected a number greater than {error.validator_value}"
        case "pattern":
            return f"{where}: {got}, expected lower-case letters, digits, '-' and '_' (a path part)"
        case "not":
            (key,) = error.validator_value["required"]
            return f"{where}: {key} has no meaning beside the other keys here; delete the line"
        case _:
            return f"{where}: {error.message}"


def _inconsistencies(config: dict[str, Any]) -> Iterator[str]:
    """Yield what a schema cannot express; ``config`` satisfies the schema."""
    for key in ("datasets", "regularizers"):
        names = [entry["name"] for entry in config[key]]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{key}: the name {name!r} is given {names.count(name)} times, expected once"
    known = [dataset["name"] for dataset in config["datasets"]]
    for i, entry in enumerate(config["regularizers"]):
        if (entry["name"] == "none") != (entry["penalty"] == "none"):
            yield (
                f"regularizers[{i}]: name {entry['name']!r} with penalty {entry['penalty']!r}, "
                "expected the name none for the penalty none and for no other: it is the baseline"
            )
        if entry["name"] == "control":
            yield (
                f"regularizers[{i}]: got the name control, which the masking checks' control has; "
                "choose another"
            )
        for name in entry.get("datasets", []):
            if name not in known:
                yield (
                    f"regularizers[{i}].datasets: got {name!r}, expected names of datasets: "
                    f"{', '.join(known)}"
                )
        paths = [f"{lam:g}" for lam in entry["lam"]]
        if len(set(paths)) < len(paths):
            yield (
                f"regularizers[{i}].lam: got {entry['lam']}, expected weights that differ in "
                "their first six digits, because these name the cells"
            )
    if "none" not in [entry["penalty"] for entry in config["regularizers"]]:
        yield (
            "regularizers: expected the baseline among them, got none such; add the entry "
            "{name: none, penalty: none, lam: [0]}"
        )
    for section, sizes, split in (
        ("evaluation", TEST_IMAGES, "test"),
        ("selection", VALIDATION_IMAGES, "validation"),
    ):
        images = config[section]["images"]
        smallest = min(known, key=lambda name, sizes=sizes: sizes.get(name, math.inf))
        if images > sizes.get(smallest, math.inf):
            yield (
                f"{section}.images: got {images}, expected at most the {sizes[smallest]} {split} "
                f"images of {smallest}"
            )
    evaluation = config["evaluation"]
    if evaluation["masking_images"] > evaluation["images"]:
        yield (
            f"evaluation.masking_images: got {evaluation['masking_images']}, expected at most "
            f"evaluation.images, {evaluation['images']}"
        )
    for i, dataset in enumerate(config["datasets"]):
        for key in ("epsilons", "headline"):
            for norm, radii in dataset[key].items():
                if radii != sorted(radii):
                    yield (
                        f"datasets[{i}].{key}.{norm}: got {radii}, expected increasing order; "
                        f"write {norm}: {sorted(radii)}"
                    )
        for norm, radii in dataset["headline"].items():
            for radius in radii:
                if radius not in dataset["epsilons"][norm]:
                    yield (
                        f"datasets[{i}].headline.{norm}: got {radius}, expected values of "
                        f"epsilons.{norm}, {dataset['epsilons'][norm]}"
                    )
    recovery = config["recovery"]
    weights = {entry["name"]: entry["lam"] for entry in config["regularizers"]}
    if recovery["regularizer"] not in weights:
        yield (
            f"recovery.regularizer: got {recovery['regularizer']!r}, expected a name of "
            f"regularizers: {', '.join(weights)}"
        )
    for lam in recovery["lam"] if recovery["regularizer"] in weights else []:
        if lam not in weights[recovery["regularizer"]]:
            yield (
                f"recovery.lam: got {lam}, expected values of {recovery['regularizer']}'s lam, "
                f"{weights[recovery['regularizer']]}"
            )
    reference = config["comparison"]["reference"]
    if reference not in weights:
        yield (
            f"comparison.reference: got {reference!r}, expected a name of regularizers: "
            f"{', '.join(weights)}"
        )
    for entry in config["regularizers"]:
        missing = [name for name in known if name not in entry.get("datasets", known)]
        if entry["name"] == reference and missing:
            yield (
                f"comparison.reference: got {reference!r}, which is not trained on "
                f"{', '.join(missing)}, expected a regularizer without `datasets:`"
            )
    for i, entry in enumerate(config["certificate"]["regularizers"]):
        where = f"certificate.regularizers[{i}]"
        if entry["name"] not in weights:
            yield (
                f"{where}.name: got {entry['name']!r}, expected a name of regularizers: "
                f"{', '.join(weights)}"
            )
        elif entry["lam"] not in weights[entry["name"]]:
            yield (
                f"{where}.lam: got {entry['lam']}, expected a value of {entry['name']}'s lam, "
                f"{weights[entry['name']]}"
            )
    lists = ("attacks", "selected_attacks")
    attacks = [(a["attack"], a["norm"]) for key in lists for a in evaluation[key]]
    for attack, norm in sorted({pair for pair in attacks if attacks.count(pair) > 1}):
        yield (
            f"evaluation: the attack {attack} with norm {norm} stands "
            f"{attacks.count((attack, norm))} times, expected once"
        )
    for attack, norm in NEEDED_ATTACKS:
        if not any((a["attack"], a["norm"]) == (attack, norm) for a in evaluation["attacks"]):
            yield f"evaluation.attacks: expected {attack} with norm {norm}, which is missing"


def _name(path) -> str:
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name or "top level"


def _closest(value: Any, allowed: list[str]) -> str:
    matches = difflib.get_close_matches(str(value), allowed, n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _hint(error: ValidationError) -> str:
    """YAML 1.1 reads 1e-3 as a text: show the number as it has to be written."""
    if error.validator_value not in ("number", "integer") or not isinstance(error.instance, str):
        return ""
    try:
        number = Decimal(error.instance)
    except InvalidOperation:
        return ""
    return f"; write {number:f}, without quotes and exponent" if number.is_finite() else ""
