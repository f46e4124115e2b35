"""The configuration: its keys, their meaning, units and defaults, and what must hold between them.

``python -m input_hessian.experiment.config`` prints the JSON schema with which editors complete and
check a configuration while it is written.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from input_hessian.experiment.errors import UserError

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Norm = Literal["linf", "l2"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _sorted(value: Any) -> Any:
    """Return nested mappings with sorted keys, so that their order in the YAML changes nothing."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(entry) for entry in value] if isinstance(value, list) else value


Model = Annotated[dict[str, Any], AfterValidator(_sorted)]
Radii = Annotated[list[Positive], Field(min_length=1)]


TYPES = {
    "bool_type": "true or false",
    "dict_type": "a mapping (indented key: value lines)",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_attributes_type": "a mapping (indented key: value lines)",
    "model_type": "a mapping (indented key: value lines)",
    "string_type": "a text",
}


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, descriptions go into the schema."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class RadiiPerNorm(Section):
    """Radii of attacks in increasing order, in pixel units of [0, 1]."""

    linf: Radii
    l2: Radii


class Dataset(Section):
    """A data set: the name of a built-in one (digits, mnist, fashion_mnist), or one of your own."""

    file: str | None = None
    """Path of the Python file that defines a data set of your own; built-in ones need none."""
    epsilons: RadiiPerNorm
    """Radii at which the attacks are run."""
    headline: RadiiPerNorm
    """Of these, the radii of the tables and of the Pareto figure, by which lam is selected, and at
    which the further attacks and the masking checks run."""


class Training(Section):
    """How every network is trained: Adam with a one-cycle learning rate."""

    epochs: Count = 4
    """Passes over the training images."""
    batch_size: Count = 256
    """Images per step."""
    learning_rate: Positive = 0.003
    """Peak of the one-cycle schedule."""


class Regularizer(Section):
    """A penalty with its options and the values of its strength lam."""

    model_config = ConfigDict(extra="allow")

    penalty: str
    """A file of input_hessian/penalties (none, gradient, hessian, taylor, cure, jacobian,
    adversarial), or the path of a Python file of your own. Other keys are its options."""
    lam: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1)]
    """Penalty strengths; a network is trained for each of them. The unit is the penalty's."""
    datasets: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of the data sets to train on; all of them where it is left out."""

    @model_validator(mode="before")
    @classmethod
    def _plain_training(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("penalty") == "none":
            return {"lam": [0]} | values
        return values


class SingleStep(Section):
    """The fast gradient sign method."""

    attack: Literal["fgsm"]
    norm: Norm


class Pgd(Section):
    """Projected gradient descent with steps of 2.5 epsilon / steps."""

    attack: Literal["pgd"]
    norm: Norm
    steps: Count = 40
    """Gradient steps."""
    restarts: Count = 1
    """Random starts."""


class Ddn(Section):
    """Decoupled direction and norm: the smallest l2 perturbation of each image."""

    attack: Literal["ddn"]
    norm: Literal["l2"] = "l2"
    steps: Count = 100
    """Gradient steps."""


class AutoAttack(Section):
    """One of AutoAttack's four, with its own budget, on what the attacks before it left."""

    attack: Literal["apgd-ce", "apgd-t", "fab-t", "square"]
    norm: Norm


Attack = Annotated[SingleStep | Pgd | Ddn | AutoAttack, Field(discriminator="attack")]


class Evaluation(Section):
    """The attacks on every cell."""

    images: Count = 200
    """Size of the fixed random subset of the test images that is attacked, the same for every cell."""
    attacks: Annotated[list[Attack], Field(min_length=1)]
    """Each is recorded on its own; "worst" is their minimum per image."""


class Selection(Section):
    """Choose one lam per data set and regularizer, by validation images alone."""

    max_clean_loss: Annotated[float, Field(ge=0, le=100)] = 2
    """Points of clean accuracy that a lam may lose against plain training. Of those that lose no
    more, the one of largest PGD accuracy, mean over the headline radii of both norms, is selected."""
    images: Count = 250
    """Validation images that PGD attacks."""
    steps: Count = 40
    """Of this PGD."""
    attacks: list[Attack] = []
    """Further attacks, on the selected cells alone, at the headline radii."""


class Masking(Section):
    """Checks for gradient masking, on every cell and on a control that must be flagged."""

    images: Count = 50
    """Of the attacked images, how many are checked."""


class Curvature(Section):
    """Gradient, Hessian and margin of test images, for every cell; and the loss-surface figures."""

    images: Count = 200
    """Of the test images; as many as are attacked, or fewer, to compare the two."""


class Cost(Section):
    """The time of a training step of every regularizer, side by side in one process."""

    rounds: Count = 30
    """Steps of each regularizer, interleaved."""


class RecoveryEstimator(Section):
    """An estimator of the Hessian's norm, at every budget."""

    method: Literal["power", "lanczos", "ascent"]
    start: Literal["gradient", "softmax", "random"]
    step_size: Positive | None = None
    """Of ascent alone, in squared pixel units per nat."""


class Recovery(Section):
    """How much of the Hessian's norm each estimator finds while a network trains."""

    regularizer: str
    """The entry of regularizers that the network is trained with."""
    lam: Annotated[list[Positive], Field(min_length=1)]
    """Of its penalty strengths."""
    images: Count = 256
    """Size of the fixed random subset of training images that is measured."""
    progress: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]
    """When it is measured, as fractions of the training."""
    hvps: Annotated[list[Count], Field(min_length=1)]
    """Budgets in Hessian-vector products; ascent can only spend odd ones."""
    draws: Count = 3
    """Random starts, averaged."""
    estimators: Annotated[list[RecoveryEstimator], Field(min_length=1)]
    """What is compared."""


class Comparison(Section):
    """Compare one regularizer with all others, image by image, at matched clean accuracy."""

    reference: str
    """The entry of regularizers that all others are compared with."""


class CertifiedCell(Section):
    """A regularizer with one of its penalty strengths."""

    name: str
    """An entry of regularizers."""
    lam: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """One of its penalty strengths."""


class Certificate(Section):
    """A side experiment on a network small and smooth enough for a certified radius."""

    model: Model
    """As the main model; fully connected with softplus. The certificate shrinks as width and beta
    grow."""
    regularizers: Annotated[list[CertifiedCell], Field(min_length=1)]
    """What is trained, with the first seed."""


class Config(Section):
    """Configuration of the input-Hessian experiment."""

    name: Name
    """Prefix of results/, reports/ and logs/, so that two experiments never mix."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, le=2**32 - 1)]], Field(min_length=1)] = [0]
    """Every cell is trained once per seed."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where networks are trained and attacked."""
    mirror: str = ""
    """A folder or URL that is tried before the public mirrors: <mirror>/<data set>/<file>."""
    datasets: Annotated[dict[Name, Dataset], Field(min_length=1)]
    """By name; null leaves one out."""
    model: Model = {"architecture": "cnn"}
    """The architecture, a file of input_hessian/experiment/models (cnn, mlp) or the path of a Python
    file of your own, and its options."""
    training: Training = Training()
    regularizers: Annotated[dict[Name, Regularizer], Field(min_length=1)]
    """By name, as in paths and legends; null leaves one out."""
    evaluation: Evaluation
    selection: Selection | None = None
    masking: Masking | None = None
    curvature: Curvature | None = None
    cost: Cost | None = None
    recovery: Recovery | None = None
    comparison: Comparison | None = None
    certificate: Certificate | None = None

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """The attacks on every cell, as keywords."""
        return [attack.model_dump() for attack in self.evaluation.attacks]

    @property
    def selected_attacks(self) -> list[dict[str, Any]]:
        """The further attacks on the selected cells, likewise."""
        return [attack.model_dump() for attack in self.selection.attacks]

    @property
    def headline(self) -> dict[str, dict[str, list[float]]]:
        """The headline radii of every data set and norm."""
        return {name: entry.headline.model_dump() for name, entry in self.datasets.items()}

    def lam_texts(self, regularizer: str) -> dict[str, float]:
        """Return the penalty strengths of a regularizer by the text that names them in paths."""
        return {f"{lam:g}": lam for lam in self.regularizers[regularizer].lam}

    def trained_on(self, dataset: str) -> list[str]:
        """Return the names of the regularizers that are trained on a data set."""
        return [
            name
            for name, entry in self.regularizers.items()
            if entry.datasets is None or dataset in entry.datasets
        ]

    def penalty(self, regularizer: str, lam: float) -> dict[str, Any]:
        """Return the keywords of :func:`input_hessian.experiment.plugins.build_penalty`."""
        entry = self.regularizers[regularizer]
        return {"penalty": entry.penalty, "lam": lam} | _sorted(entry.model_extra)

    def dataset_file(self, dataset: str) -> str:
        """Return the name or path of a data set's file."""
        return self.datasets[dataset].file or dataset

    def result_settings(self) -> dict[str, Any]:
        """Return the configuration without what changes no result."""
        return _sorted(self.model_dump(exclude={"mirror", "device"}, exclude_none=True))


def read_config(values: Mapping[str, Any], *, check_plugins: bool = True) -> Config:
    """Check a configuration.

    Args:
        values: as YAML has it.
        check_plugins: build every penalty, architecture and data set once, which imports PyTorch.

    Raises:
        UserError: naming every key that is wrong, its value, what is allowed, and what to do.
    """
    kept = dict(values)
    for key in ("datasets", "regularizers"):
        if isinstance(kept.get(key), Mapping):
            kept[key] = {name: entry for name, entry in kept[key].items() if entry is not None}
    try:
        # As JSON: strict, yet a list stays a list and a mapping a section.
        config = Config.model_validate_json(json.dumps(kept, default=str), strict=True)
    except ValidationError as error:
        problems = list(dict.fromkeys(_explain(problem) for problem in error.errors()))
    else:
        problems = list(_inconsistencies(config))
        if not problems and check_plugins:
            problems = list(_wrong_plugins(config))
        if not problems:
            return config
    listed = "\n".join(f"  - {problem}" for problem in problems)
    raise UserError(f"the configuration has {len(problems)} problem(s):\n{listed}")


def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration that is merged over another: nothing is required."""
    whole = Config.model_json_schema()
    for part in [whole, *whole["$defs"].values()]:
        part.pop("required", None)
    for key in ("datasets", "regularizers"):
        ((pattern, entry),) = whole["properties"][key]["patternProperties"].items()
        whole["properties"][key]["patternProperties"][pattern] = {
            "anyOf": [entry, {"type": "null"}]
        }
    return whole


def _explain(problem: Mapping[str, Any]) -> str:
    """Return one line about a problem that pydantic found, in the terms of the YAML file."""
    path, schema = _place(problem["loc"])
    where, value, context = _name(path), problem["input"], problem.get("ctx", {})
    got = f"got {json.dumps(value, default=str)}"
    match problem["type"]:
        case "extra_forbidden":
            known = list(_place(problem["loc"][:-1])[1]["properties"])
            return (
                f"{_name(path[:-1])}: unknown key {path[-1]!r}{_closest(path[-1], known)}; allowed "
                f"are {', '.join(known)}"
            )
        case "missing":
            return f"{_name(path[:-1])}: missing {path[-1]}; add the line `{path[-1]}: ...`"
        case "union_tag_not_found":
            return f"{where}: missing attack; add the line `attack: ...`"
        case "union_tag_invalid":
            tags = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
            hint = _closest(context["tag"], tags)
            return (
                f"{where}.attack: got {json.dumps(context['tag'])}, expected one of "
                f"{', '.join(tags)}{hint}"
            )
        case "literal_error":
            allowed = [str(choice) for choice in schema.get("enum", [schema.get("const")])]
            return f"{where}: {got}, expected one of {', '.join(allowed)}{_closest(value, allowed)}"
        case "too_short":
            return f"{where}: {'the list is empty' if value == [] else got}, expected at least one entry"
        case "string_pattern_mismatch":
            return f"{where}: {got}, expected lower-case letters, digits, '-' and '_' (a path part)"
        case "greater_than_equal":
            return f"{where}: {got}, expected at least {context['ge']:g}"
        case "less_than_equal":
            return f"{where}: {got}, expected at most {context['le']:g}"
        case "greater_than":
            return f"{where}: {got}, expected a number greater than {context['gt']:g}"
        case "finite_number":
            return f"{where}: {got}, expected a finite number"
        case kind if kind in TYPES:
            return f"{where}: {got}, expected {TYPES[kind]}{_hint(kind, value)}"
        case _:
            return f"{where}: {got}: {problem['msg']}"


def _place(location: tuple) -> tuple[list[str | int], dict[str, Any]]:
    """Return the keys that lead to a place in the YAML file, and the schema of that place."""
    whole = Config.model_json_schema()
    path, node = [], whole
    for part in location:
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rpartition("/")[2]]
        if "anyOf" in node:  # an optional section
            node = whole["$defs"][node["anyOf"][0]["$ref"].rpartition("/")[2]]
        if "discriminator" in node:  # pydantic names the member of the union, the file does not
            node = node["discriminator"]["mapping"].get(part, "")
            node = whole["$defs"].get(node.rpartition("/")[2], {})
            continue
        if part == "[key]":
            continue
        path.append(part)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            entries = [*node.get("patternProperties", {}).values(), {}]
            node = node.get("properties", {}).get(part, entries[0])
    if "$ref" in node:
        node = whole["$defs"][node["$ref"].rpartition("/")[2]]
    return path, node


def _inconsistencies(config: Config) -> Iterator[str]:
    """Yield what concerns several keys."""
    yield from _repetitions(config)
    for name, entry in config.regularizers.items():
        where = f"regularizers.{name}"
        if (name == "none") != (entry.penalty == "none"):
            yield (
                f"{where}: name {name!r} with penalty {entry.penalty!r}, expected the name none for "
                "the penalty none and for no other: it is the baseline"
            )
        if name == "control":
            yield (
                f"{where}: got the name control, which the masking checks' control has; choose another"
            )
        if name != "none" and 0 in entry.lam:
            yield f"{where}.lam: got {entry.lam}, expected numbers greater than 0"
        for dataset in entry.datasets or []:
            if dataset not in config.datasets:
                yield (
                    f"{where}.datasets: got {dataset!r}, expected names of datasets: "
                    f"{', '.join(config.datasets)}"
                )
        if len(config.lam_texts(name)) < len(entry.lam):
            yield (
                f"{where}.lam: got {entry.lam}, expected values that differ in their first six "
                "digits, because these name the cells"
            )
    baseline = config.regularizers.get("none")
    if baseline is None or baseline.datasets is not None:
        yield (
            "regularizers: expected the baseline among them, on every data set; add the entry "
            "none: {penalty: none}"
        )
    for name, dataset in config.datasets.items():
        for key in ("epsilons", "headline"):
            for norm, radii in getattr(dataset, key):
                if radii != sorted(radii):
                    yield (
                        f"datasets.{name}.{key}.{norm}: got {radii}, expected increasing order; "
                        f"write {norm}: {sorted(radii)}"
                    )
        for norm, radii in dataset.headline:
            for radius in radii:
                if radius not in getattr(dataset.epsilons, norm):
                    yield (
                        f"datasets.{name}.headline.{norm}: got {radius:g}, expected values of "
                        f"epsilons.{norm}, {getattr(dataset.epsilons, norm)}"
                    )
    for section in ("masking", "curvature"):
        part = getattr(config, section)
        if part and part.images > config.evaluation.images:
            yield (
                f"{section}.images: got {part.images}, expected at most evaluation.images, "
                f"{config.evaluation.images}"
            )
    if config.recovery:
        yield from _unknown_cells(
            config, "recovery.regularizer", config.recovery.regularizer, config.recovery.lam
        )
    if config.comparison:
        reference = config.comparison.reference
        yield from _unknown_cells(config, "comparison.reference", reference, [])
        if not config.selection:
            yield "comparison: needs the section selection; add it, or write `comparison: null`"
    if config.certificate:
        for i, cell in enumerate(config.certificate.regularizers):
            where = f"certificate.regularizers[{i}].name"
            yield from _unknown_cells(config, where, cell.name, [cell.lam])
        model = config.certificate.model
        kind = model.get("architecture"), model.get("activation", "softplus")
        if kind != ("mlp", "softplus"):
            yield (
                f"certificate.model: got architecture {kind[0]} with activation {kind[1]}, expected "
                "mlp with softplus, of which alone the curvature is bounded"
            )
        if not any(attack.attack == "ddn" for attack in config.evaluation.attacks):
            yield (
                "certificate: needs the attack ddn, which is missing in evaluation.attacks; add "
                "{attack: ddn, norm: l2}, or write `certificate: null`"
            )


def _repetitions(config: Config) -> Iterator[str]:
    """Yield lists that name something twice."""
    lists = {"seeds": config.seeds}
    for name, dataset in config.datasets.items():
        for key in ("epsilons", "headline"):
            for norm, radii in getattr(dataset, key):
                lists[f"datasets.{name}.{key}.{norm}"] = radii
    if config.recovery:
        for key in ("lam", "progress", "hvps"):
            lists[f"recovery.{key}"] = getattr(config.recovery, key)
    for where, values in lists.items():
        if len(set(values)) < len(values):
            yield f"{where}: got {values}, expected no entry twice"
    further = config.selection.attacks if config.selection else []
    attacks = [(attack.attack, attack.norm) for attack in [*config.evaluation.attacks, *further]]
    for attack, norm in sorted({pair for pair in attacks if attacks.count(pair) > 1}):
        yield (
            f"evaluation.attacks and selection.attacks: {attack} with norm {norm} stands "
            f"{attacks.count((attack, norm))} times, expected once"
        )


def _unknown_cells(config: Config, where: str, name: str, lams: list[float]) -> Iterator[str]:
    """Yield why a section cannot have these cells: it takes them on every data set."""
    if name not in config.regularizers:
        known = list(config.regularizers)
        yield (
            f"{where}: got {name!r}, expected a name of regularizers: {', '.join(known)}"
            f"{_closest(name, known)}"
        )
        return
    entry = config.regularizers[name]
    missing = [
        dataset for dataset in config.datasets if dataset not in (entry.datasets or [dataset])
    ]
    if missing:
        yield (
            f"{where}: got {name!r}, which is not trained on {', '.join(missing)}, expected a "
            "regularizer without `datasets:`"
        )
    for lam in lams:
        if lam not in entry.lam:
            yield (
                f"{where.rpartition('.')[0]}.lam: got {lam:g}, expected values of {name}'s lam, "
                f"{entry.lam}"
            )


def _wrong_plugins(config: Config) -> Iterator[str]:
    """Build everything that is named once: what cannot be built must not fail after hours."""
    from input_hessian.experiment import models
    from input_hessian.experiment.plugins import build_penalty, load_plugin

    def tried(where: str, make: Callable[[], Any]) -> Iterator[str]:
        try:
            make()
        except UserError as error:
            yield f"{where}: {error}"

    for name in config.regularizers:
        for lam in config.lam_texts(name).values():
            penalty = config.penalty(name, lam)
            yield from tried(f"regularizers.{name}", partial(build_penalty, **penalty))
    for name in config.datasets:
        try:
            dataset = load_plugin("dataset", config.dataset_file(name)).DATASET
        except (UserError, AttributeError) as error:
            yield f"datasets.{name}: {error}"
            continue
        for where, model in (("model", config.model), ("certificate.model", config.certificate)):
            options = model.model if where != "model" and model else model
            if options:
                build = partial(
                    models.build,
                    image_shape=dataset.image_shape,
                    classes=len(dataset.class_names),
                    **options,
                )
                yield from tried(where, build)
        wanted = [("evaluation", "test"), ("selection", "validation"), ("recovery", "train")]
        for section, split in wanted:
            images = getattr(getattr(config, section), "images", 0)
            if images > dataset.sizes[split]:
                yield (
                    f"{section}.images: got {images}, expected at most the {dataset.sizes[split]} "
                    f"{split} images of {name}"
                )


def _name(path: list[str | int]) -> str:
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name or "top level"


def _closest(value: Any, allowed: list[str]) -> str:
    matches = difflib.get_close_matches(str(value), allowed, n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def _hint(kind: str, value: Any) -> str:
    """YAML 1.1 reads 1e-3 as a text: show the number as it has to be written."""
    if kind not in ("float_type", "int_type") or not isinstance(value, str):
        return ""
    try:
        number = Decimal(value)
    except InvalidOperation:
        return ""
    return f"; write {number:f}, without quotes and exponent" if number.is_finite() else ""


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
