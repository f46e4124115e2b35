"""The configuration: every key with its meaning, unit, default and bounds, and what is checked.

:func:`read_config` turns what Snakemake has read from YAML into a :class:`Config`, or says in the
terms of that YAML file everything that is wrong with it.  Run as a module, this prints the JSON
schema that editors use::

    python -m input_hessian.experiment.config > workflow/schemas/config.schema.json
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.plugins import load_plugin, penalty_class

STRICT = ConfigDict(
    extra="forbid", strict=True, allow_inf_nan=False, frozen=True, use_attribute_docstrings=True
)
T = TypeVar("T")


def _listed(values: Iterable[float | str]) -> str:
    return f"[{', '.join(str(v) if isinstance(v, str) else f'{v:g}' for v in values)}]"


def _distinct(values: list[T]) -> list[T]:
    if any(value in values[:i] for i, value in enumerate(values)):
        raise PydanticCustomError("distinct", "expected no entry twice")
    return values


def _increasing(radii: list[float]) -> list[float]:
    in_order = sorted(set(radii))
    if radii != in_order:
        hint = {"hint": _listed(in_order)}
        raise PydanticCustomError("increasing", "expected increasing order; write {hint}", hint)
    return radii


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]  # part of a path
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Norm = Literal["linf", "l2"]
Start = Literal["gradient", "softmax", "random"]
Unique = {"uniqueItems": True}
Several = Annotated[
    list[T], Field(min_length=1, json_schema_extra=Unique), AfterValidator(_distinct)
]
Radii = Annotated[
    list[Positive], Field(min_length=1, json_schema_extra=Unique), AfterValidator(_increasing)
]


class Part(BaseModel):
    """A mapping of the configuration: no key beyond its fields, no value of another type."""

    model_config = STRICT


class RadiiPerNorm(TypedDict):
    """Radii of both norms, in pixel units of [0, 1], increasing."""

    __pydantic_config__ = STRICT

    linf: Radii
    """Largest change of a pixel."""
    l2: Radii
    """Euclidean length of the change of an image."""


class DatasetEntry(Part):
    """A data set and the radii at which networks are attacked on it."""

    epsilons: RadiiPerNorm
    """Radii at which the attacks are run, in pixel units of [0, 1]."""
    headline: RadiiPerNorm
    """Of these, the radii of the tables, by which lam is selected and the masking is checked."""
    file: Annotated[str, Field(pattern=r"\.py$")] | None = None
    """File that defines a data set of your own; without it, the name is that of a built-in one."""


class ModelSettings(TypedDict):
    """The network: its architecture, and the options of this architecture's `build`."""

    __pydantic_config__ = STRICT | {"extra": "allow"}

    architecture: str
    """A built-in one (cnn, mlp), or a file of your own that defines `build`."""


class Training(Part):
    """How every network is trained: Adam with a one-cycle schedule."""

    epochs: Count
    """Passes over the training images."""
    batch_size: Count = 256
    """Images per step."""
    learning_rate: Positive = 0.003
    """Peak of the schedule."""


class Regularizer(Part):
    """A penalty, its strengths, and its options: the fields of the penalty's class."""

    model_config = STRICT | {"extra": "allow"}

    penalty: str
    """A built-in one (none, gradient, hessian, taylor, cure, jacobian, adversarial), or a file of
    your own with a class that derives from `Penalty`."""
    lam: Several[float] = [0.0]
    """Penalty strengths, one cell each, in the penalty's own unit; left out for plain training."""
    datasets: Several[str] | None = None
    """Data sets that it is trained on; all without this line."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of the penalty, as written."""
        return dict(self.model_extra)


class FixedAttack(Part):
    """An attack without options; those of AutoAttack have their standard budgets."""

    attack: Literal["fgsm", "apgd-ce", "apgd-t", "fab-t", "square"]
    """Which attack."""
    norm: Norm
    """Norm of the perturbation."""


class PgdAttack(Part):
    """Projected gradient descent from random starts."""

    attack: Literal["pgd"]
    """Which attack."""
    norm: Norm
    """Norm of the perturbation."""
    steps: Count = 40
    """Steps of a run, each 2.5 epsilon / steps long."""
    restarts: Count = 1
    """Runs, each on the images that are still classified correctly."""


class DdnAttack(Part):
    """The smallest l2 perturbation of each image."""

    attack: Literal["ddn"]
    """Which attack."""
    norm: Literal["l2"]
    """Norm of the perturbation."""
    steps: Count = 100
    """Steps of the run."""


Attack = Annotated[FixedAttack | PgdAttack | DdnAttack, Field(discriminator="attack")]


class Evaluation(Part):
    """What every trained network is attacked with."""

    images: Count
    """A fixed random subset of the test images, the same for every cell."""
    attacks: list[Attack] = Field(min_length=1)
    """Attacks on every cell, each recorded on its own."""


class Selection(Part):
    """Selection of one lam per data set and regularizer, by validation images alone."""

    max_clean_loss: Annotated[float, Field(ge=0, le=100)] = 2.0
    """Percentage points of clean accuracy that a lam may lose against plain training."""
    images: Count
    """Validation images attacked, a fixed random subset."""
    steps: Count = 40
    """Steps of PGD on them."""
    attacks: list[Attack] = []
    """Further attacks on the selected cells, at the headline radii."""


class Masking(Part):
    """Checks of every cell for gradient masking, and a control that must fail them."""

    images: Count
    """Of the attacked test images, how many are checked."""


class Curvature(Part):
    """Gradient and Hessian norm, margin and predicted radius of every cell, image by image."""

    images: Count
    """Test images measured, a fixed random subset."""


class Cost(Part):
    """Time of a training step of every regularizer."""

    rounds: Count = 30
    """Rounds in which every regularizer is timed in turn."""


class KrylovEstimator(Part):
    """Power iteration or Lanczos."""

    method: Literal["power", "lanczos"]
    """How ||H|| is found."""
    start: Start
    """First vector."""


class AscentEstimator(Part):
    """Gradient ascent with a fixed step size."""

    method: Literal["ascent"]
    """How ||H|| is found."""
    start: Start
    """First vector."""
    step_size: Positive
    """Step size, in squared pixel units per nat."""


class Recovery(Part):
    """How much of ||H|| each estimator finds, measured while a network trains."""

    regularizer: str
    """Regularizer that the network trains with."""
    lam: Several[Positive]
    """Of its lam; one training each."""
    images: Count
    """Training images measured, a fixed random subset."""
    progress: Several[Fraction]
    """When it is measured, as parts of the training."""
    hvps: Several[Count]
    """Budgets, in Hessian-vector products per image; ascent can only spend odd ones."""
    draws: Count = 1
    """Random starts, averaged."""
    estimators: Several[Annotated[KrylovEstimator | AscentEstimator, Field(discriminator="method")]]
    """Estimators compared."""


class Comparison(Part):
    """Comparison of the regularizers image by image, at matched clean accuracy."""

    reference: str
    """Regularizer that all others are compared with."""


class CertifiedCell(Part):
    """A regularizer and one of its lam."""

    name: str
    """Name of the regularizer."""
    lam: Annotated[float, Field(ge=0)]
    """One of its lam."""


class Certificate(Part):
    """A side experiment, on networks small and smooth enough for a certified radius; first seed."""

    model: ModelSettings
    """Fully connected with softplus; the certificate shrinks as width and beta grow."""
    regularizers: Several[CertifiedCell]
    """What these networks are trained with."""


class Config(Part):
    """One experiment.  A null stands for a key that is left out."""

    name: Name
    """Prefix of results/ and reports/, so that two experiments never mix."""
    seeds: Several[Seed] = [0]
    """Every cell is trained once per seed."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks are trained and attacked."""
    mirror: str = ""
    """Folder or URL tried before the public addresses: `<mirror>/<data set>/<file>`."""
    datasets: Annotated[dict[Name, DatasetEntry], Field(min_length=1)]
    """Data sets, by name."""
    model: ModelSettings
    """The network that is trained in every cell."""
    training: Training
    """How it is trained."""
    regularizers: Annotated[dict[Name, Regularizer], Field(min_length=1)]
    """Regularizers compared, by the name that stands in paths and legends."""
    evaluation: Evaluation
    """What every cell is attacked with."""
    selection: Selection | None = None
    """Selection of one lam per data set and regularizer; not computed if left out."""
    masking: Masking | None = None
    """Checks for gradient masking; not computed if left out."""
    curvature: Curvature | None = None
    """Curvature and predicted radii; not computed if left out."""
    cost: Cost | None = None
    """Times of training steps; not computed if left out."""
    recovery: Recovery | None = None
    """Comparison of estimators during training; not computed if left out."""
    comparison: Comparison | None = None
    """Comparison image by image; not computed if left out."""
    certificate: Certificate | None = None
    """Certified radii; not computed if left out."""

    def trained_on(self, dataset: str) -> list[str]:
        """Return the names of the regularizers that are trained on a data set."""
        return [
            name
            for name, entry in self.regularizers.items()
            if entry.datasets is None or dataset in entry.datasets
        ]

    def lam_texts(self, regularizer: str) -> dict[str, float]:
        """Return every lam of a regularizer under the text that stands for it in paths."""
        return {f"{lam:g}": lam for lam in self.regularizers[regularizer].lam}

    def penalty(self, regularizer: str, lam: float) -> dict[str, Any]:
        """Return the keywords of :func:`input_hessian.experiment.plugins.build_penalty`."""
        entry = self.regularizers[regularizer]
        return {"penalty": entry.penalty, "lam": lam, **entry.options}

    def dataset_file(self, dataset: str) -> str:
        """Return the name or path that :func:`~input_hessian.experiment.plugins.load_plugin` takes."""
        return self.datasets[dataset].file or dataset

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """Attacks on every cell."""
        return [attack.model_dump() for attack in self.evaluation.attacks]

    @property
    def selected_attacks(self) -> list[dict[str, Any]]:
        """Further attacks on the selected cells."""
        return [attack.model_dump() for attack in self.selection.attacks] if self.selection else []

    @property
    def recovery_settings(self) -> dict[str, Any]:
        """What is measured during training, without what it is trained with."""
        return self.recovery.model_dump(exclude={"regularizer", "lam"})

    def result_settings(self) -> dict[str, Any]:
        """Return the configuration without what changes no result."""
        return self.model_dump(exclude={"mirror", "device"}, exclude_none=True)


def read_config(mapping: dict[str, Any], *, check_plugins: bool = True) -> Config:
    """Return the configuration of a mapping that was read from YAML.

    Args:
        mapping: keys and values; a null means that the key is left out.
        check_plugins: load every data set, and build every network and penalty once, so that a
            mistyped option fails before anything is trained (imports torch, seconds).

    Raises:
        UserError: naming every key that is wrong, its value, and what is expected.
    """
    content = _without_nulls(mapping)
    try:
        # As JSON: pydantic is strict about its types, yet takes a mapping for a model.
        config = Config.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        problems = list(_explain(error, Config.model_json_schema(), content))
    else:
        problems = list(_inconsistencies(config))
        if check_plugins:
            problems += _plugin_problems(config)
    if problems:
        problems = list(dict.fromkeys(problems))  # two lam of one penalty share its options
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"the configuration has {len(problems)} problem(s):\n{listed}")
    return config


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return value


def _inconsistencies(config: Config) -> Iterator[str]:
    """Yield what is wrong with values that are right one by one."""
    known = list(config.datasets)
    lams = {name: entry.lam for name, entry in config.regularizers.items()}
    names = f"expected a name of regularizers: {', '.join(lams)}"

    for name, entry in config.datasets.items():
        for norm, radii in entry.headline.items():
            for radius in radii:
                if radius not in entry.epsilons[norm]:
                    yield (
                        f"datasets.{name}.headline.{norm}: got {radius:g}, expected values of "
                        f"epsilons.{norm}, {_listed(entry.epsilons[norm])}"
                    )

    if "none" not in lams:
        yield (
            "regularizers: expected the baseline among them, got none such; add the line "
            "`none: {penalty: none}`"
        )
    for name, entry in config.regularizers.items():
        where = f"regularizers.{name}"
        if (name == "none") != (entry.penalty == "none"):
            yield (
                f"{where}.penalty: got {entry.penalty!r}, expected the name none for the penalty "
                "none and for no other: it is the baseline"
            )
        elif name != "none" and "lam" not in entry.model_fields_set:
            yield f"{where}: missing lam; add the line `lam: [...]`"
        if name == "control":
            yield (f"{where}: this name is that of the masking checks' control; choose another")
        for dataset in entry.datasets or []:
            if dataset not in known:
                yield (
                    f"{where}.datasets: got {dataset!r}, expected names of datasets: "
                    f"{', '.join(known)}; `{name}: null` leaves the regularizer out"
                )
        if len(config.lam_texts(name)) < len(entry.lam):
            yield (
                f"{where}.lam: got {entry.lam}, expected values that differ in their first six "
                "digits, because these name the cells"
            )

    sections = ["evaluation"] + ["selection"] * bool(config.selection)
    for section in sections:
        for i, attack in enumerate(getattr(config, section).attacks):
            earlier = (config.attacks + config.selected_attacks)[
                : i + (section == "selection") * len(config.attacks)
            ]
            if (attack.attack, attack.norm) in [(a["attack"], a["norm"]) for a in earlier]:
                yield (
                    f"{section}.attacks[{i}]: the attack {attack.attack} with norm {attack.norm} "
                    "stands above already, expected once"
                )
    if config.masking and config.masking.images > config.evaluation.images:
        yield (
            f"masking.images: got {config.masking.images}, expected at most evaluation.images, "
            f"{config.evaluation.images}"
        )

    if config.recovery:
        name = config.recovery.regularizer
        if name not in lams:
            yield f"recovery.regularizer: got {name!r}, {names}{_closest(name, lams)}"
        for i, lam in enumerate(config.recovery.lam):
            if lam not in lams.get(name, [lam]):
                yield (
                    f"recovery.lam[{i}]: got {lam:g}, expected a value of {name}'s lam, "
                    f"{_listed(lams[name])}; `recovery: null` leaves this measurement out"
                )

    if config.comparison:
        name = config.comparison.reference
        missing = [dataset for dataset in known if name not in config.trained_on(dataset)]
        if name not in lams:
            yield f"comparison.reference: got {name!r}, {names}{_closest(name, lams)}"
        elif missing:
            yield (
                f"comparison.reference: got {name!r}, which is not trained on "
                f"{', '.join(missing)}, expected a regularizer without `datasets:`"
            )
        if not config.selection:
            yield (
                "comparison: compares selected cells, but there is no selection; add the section "
                "`selection:`, or leave this one out with `comparison: null`"
            )

    if config.certificate:
        for i, cell in enumerate(config.certificate.regularizers):
            where = f"certificate.regularizers[{i}]"
            if cell.name not in lams:
                yield f"{where}.name: got {cell.name!r}, {names}{_closest(cell.name, lams)}"
            elif cell.lam not in lams[cell.name]:
                yield (
                    f"{where}.lam: got {cell.lam:g}, expected a value of {cell.name}'s lam, "
                    f"{_listed(lams[cell.name])}; `certificate: null` leaves this experiment out"
                )
        if not any(attack["attack"] == "ddn" for attack in config.attacks):
            yield (
                "certificate: is compared with the attack ddn, which is not among "
                "evaluation.attacks; add `{attack: ddn, norm: l2}` to these, or leave this section "
                "out with `certificate: null`"
            )


def _plugin_problems(config: Config) -> Iterator[str]:
    """Yield what data sets, networks and penalties say of their options."""
    for name, entry in config.regularizers.items():
        if "lam" in entry.model_fields_set or name == "none":
            yield from _penalty_problems(f"regularizers.{name}", entry)

    datasets = {}
    for name, entry in config.datasets.items():
        try:
            datasets[name] = load_plugin("dataset", config.dataset_file(name)).DATASET
        except (UserError, AttributeError) as error:
            hint = "" if entry.file else "; for one of your own, add the line `file: <path>.py`"
            yield f"datasets.{name}: {str(error).removeprefix('dataset: ')}{hint}"

    for section, split in {
        "evaluation": "test",
        "selection": "validation",
        "curvature": "test",
        "recovery": "train",
    }.items():
        images = getattr(getattr(config, section), "images", 0)
        for name, dataset in datasets.items():
            if images > dataset.sizes[split]:
                yield (
                    f"{section}.images: got {images}, expected at most the {dataset.sizes[split]} "
                    f"{split} images of {name}"
                )

    for name, dataset in datasets.items():
        yield from _model_problems("model", config.model, name, dataset)
        if config.certificate:
            from input_hessian.certificate import curvature_bound

            where, settings = "certificate.model", config.certificate.model
            yield from _model_problems(where, settings, name, dataset, then=curvature_bound)


def _penalty_problems(where: str, entry: Regularizer) -> Iterator[str]:
    try:
        adapter = TypeAdapter(penalty_class(entry.penalty))
    except UserError as error:
        yield f"{where}.{error}"
        return
    schema = adapter.json_schema()
    schema["properties"] = {key: {} for key in Regularizer.model_fields} | schema["properties"]
    for i, lam in enumerate(entry.lam):
        options = {"lam": lam, **entry.options}
        try:
            adapter.validate_json(json.dumps(options), strict=True)
        except ValidationError as error:
            for problem in _explain(error, schema, options, where):
                yield problem.replace(f"{where}.lam:", f"{where}.lam[{i}]:", 1)


def _model_problems(where, settings, name, dataset, then=lambda model: None) -> Iterator[str]:
    """Yield why a network cannot be built for a data set, or why ``then`` refuses it."""
    options = {key: value for key, value in settings.items() if key != "architecture"}
    try:
        adapter = TypeAdapter(load_plugin("architecture", settings["architecture"]).build)
        schema = adapter.json_schema()
        known = schema["properties"]
        schema["properties"] = {"architecture": {}} | {
            key: known[key] for key in known if key not in ("image_shape", "classes")
        }
        shape = {"image_shape": dataset.image_shape, "classes": len(dataset.class_names)}
        then(adapter.validate_json(json.dumps(shape | options), strict=True))
    except ValidationError as error:
        yield from _explain(error, schema, options, where)
    except UserError as error:
        yield f"{where}.{error}"
    except Exception as error:  # whatever the network's code raises
        yield f"{where}: cannot be built for the images of {name}: {error}"


# What pydantic's error types stand for in a YAML file.
TYPES = {
    "bool_type": "true or false",
    "dataclass_type": "a mapping (indented key: value lines)",
    "dict_type": "a mapping (indented key: value lines)",
    "finite_number": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "a mapping (indented key: value lines)",
    "model_type": "a mapping (indented key: value lines)",
    "string_type": "a text",
}
BOUNDS = {
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "at most {le}",
}


def _explain(
    error: ValidationError, schema: dict[str, Any], content: Any, where: str = ""
) -> Iterator[str]:
    """Yield pydantic's errors in the terms of a YAML file.

    Args:
        error: what pydantic says.
        schema: JSON schema of what was validated: it knows the keys that are allowed.
        content: what was validated.
        where: path of ``content`` in the configuration.
    """
    for problem in error.errors(include_url=False):
        location, context = problem["loc"], problem.get("ctx", {})
        path = _yaml_path(location, content)
        parent, here, key = _named(where, path[:-1]), _named(where, path), path[-1] if path else ""
        got = f"got {json.dumps(problem['input'], default=str)}"
        match problem["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                known = _known_keys(schema, location[:-1])
                yield (
                    f"{parent}: unknown key {key!r}{_closest(key, known)}; allowed are "
                    f"{', '.join(known)}"
                )
            case "missing" | "missing_argument" | "missing_keyword_only_argument":
                yield f"{parent}: missing {key}; add the line `{key}: ...`"
            case "union_tag_not_found":
                missing = context["discriminator"].strip("'")
                yield f"{here}: missing {missing}; add the line `{missing}: ...`"
            case "union_tag_invalid":
                allowed = re.findall("'(.*?)'", context["expected_tags"])
                name = context["discriminator"].strip("'")
                yield (
                    f"{here}.{name}: got {json.dumps(context['tag'])}, expected one of "
                    f"{', '.join(allowed)}{_closest(context['tag'], allowed)}"
                )
            case "literal_error":
                allowed = re.findall("'(.*?)'", context["expected"])
                one_of = "one of " * (len(allowed) > 1)
                closest = _closest(problem["input"], allowed)
                yield f"{here}: {got}, expected {one_of}{', '.join(allowed)}{closest}"
            case "too_short":
                yield f"{here}: the list is empty, expected at least one entry"
            case "string_pattern_mismatch" if context["pattern"].endswith("py$"):
                yield f"{here}: {got}, expected the path of a file that ends in .py"
            case "string_pattern_mismatch":
                yield (
                    f"{parent if location[-1] == '[key]' else here}: {got}, expected lower-case "
                    "letters, digits, '-' and '_' (a path part)"
                )
            case "value_error":  # of a penalty or a network: it names the option first
                yield f"{here}.{context['error']}"
            case name if name in TYPES:
                yield f"{here}: {got}, expected {TYPES[name]}{_hint(name, problem['input'])}"
            case name if name in BOUNDS:
                yield f"{here}: {got}, expected {BOUNDS[name].format(**_plain(context))}"
            case _:
                yield f"{here}: {got}, {problem['msg']}"


def _yaml_path(location: tuple[str | int, ...], content: Any) -> list[str | int]:
    """Return the keys to a value, without what pydantic adds for itself."""
    path = []
    for i, part in enumerate(location):
        if part == "[key]":
            continue
        if isinstance(content, dict) and part not in content and i < len(location) - 1:
            continue  # the tag of a union
        path.append(part)
        known = (isinstance(content, dict) and part in content) or isinstance(content, list)
        content = content[part] if known else None
    return path


def _named(where: str, path: list[str | int]) -> str:
    for part in path:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    return where or "top level"


def _known_keys(schema: dict[str, Any], location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that the mapping at a location of the schema may have."""
    node = _resolved(schema, schema)
    for part in location:
        if isinstance(part, int):
            node = node["items"]
        elif "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        else:
            node = node.get("properties", {}).get(part) or node["additionalProperties"]
        node = _resolved(node, schema)
    return list(node["properties"])


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in node:  # or null
        node = node["anyOf"][0]
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _closest(value: Any, allowed: Iterable[str]) -> str:
    matches = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _plain(context: dict[str, Any]) -> dict[str, str]:
    return {key: f"{value:g}" for key, value in context.items() if key in ("gt", "ge", "lt", "le")}


def _hint(kind: str, value: Any) -> str:
    """Say how a number or a truth value that came as a text has to be written."""
    if not isinstance(value, str):
        return ""
    if kind == "bool_type":
        return (
            f"; write {value.lower()}, without quotes{NESTED}" if value in ("true", "false") else ""
        )
    if kind not in ("float_type", "int_type"):
        return ""
    try:
        number = Decimal(value)
    except InvalidOperation:
        return ""
    if not number.is_finite():
        return ""
    # YAML 1.1 reads 1e-3 as a text.
    text = f"{number:f}"
    return f"; write {text}, without quotes and exponent{NESTED if text == value else ''}"


# Snakemake's --config keeps texts inside of {...} and [...].
NESTED = " (inside of --config key={...}, all values are texts: use a second --configfile)"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file, which need not be complete.

    What is merged over config.yaml states only what differs: no key of a mapping is required, and a
    null leaves an entry or a section out.  The entries of lists are not merged, but complete.
    """
    schema = Config.model_json_schema()
    _relax(schema, schema, set())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _relax(node: dict[str, Any], schema: dict[str, Any], seen: set[int]) -> None:
    node = _resolved(node, schema)
    if id(node) in seen:
        return
    seen.add(id(node))
    node.pop("required", None)
    node.pop("minProperties", None)
    for part in node.get("properties", {}).values():
        _relax(part, schema, seen)
    entries = node.get("additionalProperties")
    if isinstance(entries, dict):
        _relax(entries, schema, seen)
        node["additionalProperties"] = {"anyOf": [entries, {"type": "null"}]}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
