"""The configuration: every key with its meaning, unit, default and bounds, and what is checked.

:func:`read_config` turns what Snakemake has read from YAML into a :class:`Config`, or says in the
terms of that YAML file everything that is wrong with it.  Run as a module, this prints the JSON
schema that editors use::

    python -m input_hessian.experiment.config > workflow/schemas/config.schema.json
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError, PydanticOmit
from typing_extensions import TypedDict

from input_hessian.experiment.errors import UserError, beyond_every_image, closest
from input_hessian.experiment.explain import explain, resolved
from input_hessian.experiment.plugins import load_plugin

STRICT = ConfigDict(
    extra="forbid", strict=True, allow_inf_nan=False, frozen=True, use_attribute_docstrings=True
)
T = TypeVar("T")
# Of which split a section takes its images.
SPLITS = {"evaluation": "test", "selection": "validation", "recovery": "train"}


def _listed(values: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _distinct(values: list[T]) -> list[T]:
    if any(value in values[:i] for i, value in enumerate(values)):
        raise PydanticCustomError("distinct", "expected no entry twice")
    return values


def _sorted(value: Any) -> Any:
    """Return nested mappings with sorted keys, so that their order in the YAML changes nothing."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return value


def _baseline_first(entries: dict[str, T]) -> dict[str, T]:
    """Return the entries in the order of tables and legends; merged files leave any order."""
    return dict(sorted(entries.items(), key=lambda entry: entry[0] != "none"))


def _increasing(radii: list[float]) -> list[float]:
    in_order = sorted(set(radii))
    if radii != in_order:
        hint = {"hint": _listed(in_order)}
        raise PydanticCustomError("increasing", "expected increasing order; write {hint}", hint)
    if len({f"{radius:g}" for radius in radii}) < len(radii):
        message = "expected values that differ in their first six digits, which name them in tables"
        raise PydanticCustomError("six_digits", message)
    return radii


def _positive(lam: list[float], info: ValidationInfo) -> list[float]:
    if info.data.get("penalty") != "none" and min(lam) <= 0:
        raise PydanticCustomError("positive", "expected numbers greater than 0")
    return lam


# Part of a path; a file system takes 255 bytes between slashes, with what rules add to the name.
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]
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
Strengths = Annotated[Several[float], AfterValidator(_positive)]
# Of all data sets, or a mapping of those that the regularizer is trained on.
Lams = Annotated[
    Annotated[Strengths, Tag("list")] | Annotated[dict[str, Strengths], Tag("mapping")],
    Discriminator(lambda lam: "mapping" if isinstance(lam, dict) else "list"),
]
Radii = Annotated[
    list[Positive], Field(min_length=1, json_schema_extra=Unique), AfterValidator(_increasing)
]


class Part(BaseModel):
    """A mapping of the configuration: no key beyond its fields, no value of another type."""

    model_config = STRICT


class RadiiPerNorm(Part):
    """Radii of attacks, in pixel units of [0, 1], increasing."""

    linf: Radii
    """Largest change of a pixel."""
    l2: Radii
    """Euclidean length of the change of an image."""


class DatasetEntry(Part):
    """A data set and the radii at which networks are attacked on it."""

    epsilons: RadiiPerNorm
    """Radii at which the attacks are run, in pixel units of [0, 1]."""
    headline: RadiiPerNorm
    """Of these, the radii at which the most expensive attacks and the masking checks run, and which short
    tables show."""
    max_clean_loss: Annotated[float, Field(ge=0, le=100)] = 2.0
    """Percentage points of clean accuracy that may be lost against plain training, where
    regularizers are compared and lam is selected."""
    file: Annotated[str, Field(pattern=r"\.py$")] | None = None
    """File that defines a data set of your own; without it, the name is that of a built-in one."""


class ModelSettings(TypedDict):
    """The network: its architecture, and the options of this architecture's `build`."""

    __pydantic_config__ = STRICT | {"extra": "allow"}

    architecture: str
    """A built-in one (cnn, mlp, resnet), or a file of your own that defines `build`."""


Model = Annotated[ModelSettings, AfterValidator(_sorted)]


class Training(Part):
    """How every network is trained: Adam with a one-cycle schedule."""

    epochs: Count
    """Passes over the training images of plain training; a regularizer with a slower step makes fewer."""
    batch_size: Count = 256
    """Images per step."""
    learning_rate: Positive = 0.003
    """Peak of the schedule."""


class Regularizer(Part):
    """A penalty, its strengths, and its options: the fields of the penalty's class."""

    model_config = STRICT | {"extra": "allow"}

    penalty: str
    """A built-in one (none, gradient, hessian, taylor, cure, jacobian, adversarial, trades), or a file of
    your own with a class that derives from `Penalty`."""
    lam: Lams = [0.0]
    """Penalty strengths, one cell each, in the penalty's own unit: for all data sets, or a mapping
    of those that it is trained on; left out for plain training."""
    step_cost: Annotated[float, Field(ge=1)] = 1.0
    """Time of a training step as a multiple of plain training's; it trains for `epochs / step_cost`
    epochs, so that all regularizers train for the same time."""

    def lams(self, dataset: str) -> list[float]:
        """Return the penalty strengths on a data set; none where it is not trained."""
        return self.lam.get(dataset, []) if isinstance(self.lam, dict) else self.lam

    def lam_key(self, dataset: str) -> str:
        """Return where these stand in the entry."""
        return f"lam.{dataset}" if isinstance(self.lam, dict) else "lam"

    @property
    def options(self) -> dict[str, Any]:
        """Options of the penalty, sorted by name."""
        return _sorted(self.model_extra)


class Network(Part):
    """A network that was trained elsewhere: a cell with lam 0, at the first seed."""

    checkpoint: str
    """File with its state dict: `.safetensors`, or as `torch.save` writes it; or an exported program, `.pt2`."""
    architecture: str = ""
    """What makes the network: as in `model`, or `package.module:function` of an installed package, which
    gets the options alone; left out for an exported program."""
    options: dict[str, Any] = {}
    """Keywords of what makes it."""
    dataset: str
    """Data set that it classifies."""


class FixedAttack(Part):
    """An attack without options; those of AutoAttack have their standard budgets."""

    attack: Literal["fgsm", "fab-t"]
    """Which attack."""
    norm: Norm
    """Norm of the perturbation."""
    radii: Literal["headline"] | None = None
    """`headline`: at these radii of the data set alone, instead of at all epsilons."""


class ApgdAttack(FixedAttack):
    """Projected gradient descent of AutoAttack, which adapts its step size."""

    attack: Literal["apgd-ce", "apgd-t"]
    """Which attack."""
    restarts: Count | None = None
    """Runs, each on the images that are still classified correctly; AutoAttack's standard is 1."""


class SquareAttack(FixedAttack):
    """The attack of AutoAttack that uses no gradient."""

    attack: Literal["square"]
    """Which attack."""
    queries: Count = 5000
    """Queries of the network for each image; AutoAttack's standard is 5000."""


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


Attack = Annotated[
    FixedAttack | ApgdAttack | SquareAttack | PgdAttack | DdnAttack, Field(discriminator="attack")
]


class Evaluation(Part):
    """What every trained network is attacked with."""

    images: Count
    """A fixed random subset of the test images, the same for every cell."""
    attacks: list[Attack] = Field(min_length=1)
    """Attacks on every cell, each recorded on its own."""


class Selection(Part):
    """Selection of one lam per data set and regularizer, by validation images alone."""

    images: Count
    """Validation images attacked by APGD-CE, a fixed random subset."""


class StrongerAttacks(Part):
    """More attacks on the selected networks of the first seed, at the headline radii.

    They enter no comparison, and say how much lower its robust accuracies could still be.
    """

    images: Count
    """Of the attacked test images, how many."""
    attacks: list[Attack] = Field(min_length=1)
    """Each gets what those before it left; last, the networks' adversarial examples are tried on each
    other.  A norm in which not all networks are attacked is left out."""


class Masking(Part):
    """Checks of every cell for gradient masking, and a control that must fail them."""

    images: Count
    """Of the attacked test images, how many are checked."""
    queries: Count = 5000
    """Queries of the Square attack for each image and norm."""


class Curvature(Part):
    """Gradient and Hessian norm, margin and predicted radius of every cell, image by image."""

    images: Count
    """Of the attacked test images, how many are measured."""


class Path(Part):
    """How loss and margin change on the way to each image's smallest perturbation, of every cell."""

    images: Count
    """Of the attacked test images, how many are measured."""
    points: Annotated[int, Field(ge=2)] = 41
    """Points of each path, both ends included."""


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
    """Penalty strengths; one training each."""
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
    """Comparison of regularizers image by image, at a limited loss of clean accuracy."""

    reference: str
    """Regularizer that the others are compared with."""
    families: dict[Annotated[str, Field(min_length=1)], Several[str]] = {}
    """With whom, by the name that tables use: of several regularizers, for each data set and norm
    with the most robust one on validation images; p-values are adjusted within a family."""


class CertifiedCell(Part):
    """A regularizer and one of its lam."""

    name: str
    """Name of the regularizer."""
    lam: Annotated[float, Field(ge=0)]
    """Penalty strength."""


class Certificate(Part):
    """A side experiment, on networks small and smooth enough for a certified radius."""

    model: Model
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
    """Folder or URL tried before the public addresses: `<mirror>/<data set>/<file>`; of a folder also
    the file itself and torchvision's `MNIST/raw`."""
    datasets: Annotated[dict[Name, DatasetEntry], Field(min_length=1)]
    """Data sets, by name."""
    model: Model
    """The network that is trained in every cell."""
    training: Training
    """How it is trained."""
    regularizers: Annotated[
        dict[Name, Regularizer], Field(min_length=1), AfterValidator(_baseline_first)
    ]
    """Regularizers compared, by the name that stands in paths and legends."""
    networks: dict[Name, Network] = {}
    """Networks of your own that are attacked and measured beside those that are trained, by name."""
    evaluation: Evaluation
    """What every cell is attacked with."""
    selection: Selection | None = None
    """Selection of one lam per data set and regularizer; not computed if left out."""
    stronger_attacks: StrongerAttacks | None = None
    """More attacks on the selected networks; not computed if left out."""
    masking: Masking | None = None
    """Checks for gradient masking; not computed if left out."""
    curvature: Curvature | None = None
    """Curvature and predicted radii; not computed if left out."""
    path: Path | None = None
    """Loss and margin on the way to the smallest perturbation; not computed if left out."""
    cost: Cost | None = None
    """Times of training steps; not computed if left out."""
    recovery: Recovery | None = None
    """Comparison of estimators during training; not computed if left out."""
    comparison: Comparison | None = None
    """Comparison image by image; not computed if left out."""
    certificate: Certificate | None = None
    """Certified radii; not computed if left out."""

    @property
    def side_lams(self) -> list[tuple[str, str, list[float]]]:
        """Return section, regularizer and lam of what is trained beside the cells."""
        found = []
        if self.recovery:
            found.append(("recovery", self.recovery.regularizer, self.recovery.lam))
        for cell in self.certificate.regularizers if self.certificate else []:
            found.append(("certificate", cell.name, [cell.lam]))
        return found

    def lam(self, regularizer: str, text: str) -> float:
        """Return the penalty strength that a text in a path names."""
        if regularizer in self.networks:
            return 0.0
        beside = [lams for _, name, lams in self.side_lams if name == regularizer]
        trained = [self.regularizers[regularizer].lams(dataset) for dataset in self.datasets]
        every = [lam for lams in (*trained, *beside) for lam in lams]
        return next(lam for lam in every if f"{lam:g}" == text)

    def trained_on(self, dataset: str) -> list[str]:
        """Return the names of the regularizers that are trained on a data set."""
        return [name for name, entry in self.regularizers.items() if entry.lams(dataset)]

    def evaluated_on(self, dataset: str) -> list[str]:
        """Return the names of the regularizers that are trained on a data set, then those of networks."""
        networks = [name for name, entry in self.networks.items() if entry.dataset == dataset]
        return self.trained_on(dataset) + networks

    def seeds_of(self, name: str) -> list[int]:
        """Return the seeds of a regularizer, or of a network, which has the first one alone."""
        return self.seeds[:1] if name in self.networks else self.seeds

    def lam_texts(self, regularizer: str, dataset: str) -> dict[str, float]:
        """Return every lam of a regularizer, or of a network, under the text for it in paths."""
        if regularizer in self.networks:
            return {"0": 0.0}
        return {f"{lam:g}": lam for lam in self.regularizers[regularizer].lams(dataset)}

    def training_of(self, regularizer: str) -> dict[str, Any]:
        """Return how the networks of a regularizer are trained: at least one epoch."""
        epochs = max(1, round(self.training.epochs / self.regularizers[regularizer].step_cost))
        return self.training.model_dump() | {"epochs": epochs}

    def penalty(self, regularizer: str, lam: float) -> dict[str, Any]:
        """Return the keywords of :func:`input_hessian.experiment.penalty.build_penalty`."""
        entry = self.regularizers[regularizer]
        return {"penalty": entry.penalty, "lam": lam, **entry.options}

    def dataset_file(self, dataset: str) -> str:
        """Return the name or path that :func:`~input_hessian.experiment.plugins.load_plugin` takes."""
        return self.datasets[dataset].file or dataset

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """Attacks on every cell."""
        return [attack.model_dump(exclude_none=True) for attack in self.evaluation.attacks]

    @property
    def more_attacks(self) -> list[dict[str, Any]]:
        """Stronger attacks, on the selected networks: those of norms in which all are attacked."""
        attacks = self.stronger_attacks.attacks if self.stronger_attacks else []
        norms = {attack.norm for attack in self.evaluation.attacks}
        return [attack.model_dump(exclude_none=True) for attack in attacks if attack.norm in norms]

    @property
    def headline(self) -> dict[str, dict[str, list[float]]]:
        """Headline radii of every data set and norm."""
        return {name: entry.headline.model_dump() for name, entry in self.datasets.items()}

    def result_settings(self) -> dict[str, Any]:
        """Return the configuration without what changes no result, in its order: that of the legends."""
        left_out = {"mirror", "device"} | (set() if self.networks else {"networks"})
        return self.model_dump(exclude=left_out, exclude_none=True)


def read_config(mapping: dict[str, Any], *, check_plugins: bool = True) -> Config:
    """Return the configuration of a mapping that was read from YAML.

    Args:
        mapping: keys and values; a null means that the key is left out.
        check_plugins: load every data set, and build every network and penalty once, so that a
            mistyped option fails before anything is trained (imports torch, seconds).

    Raises:
        UserError: naming every key that is wrong, its value, and what is expected.
    """
    # As JSON: there, pydantic is strict about types, yet takes a mapping for a model.
    text = json.dumps(_without_nulls(_consistently_left_out(mapping)), default=str)
    try:
        config = Config.model_validate_json(text)
    except ValidationError as error:
        problems = list(explain(error, Config.model_json_schema(), json.loads(text)))
    else:
        infinite = list(_not_finite(json.loads(text)))
        problems = [*infinite, *_inconsistencies(config)]
        if check_plugins and not infinite:
            problems += _plugin_problems(config)
    if problems:
        problems = list(dict.fromkeys(problems))  # two lam of one penalty share its options
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"the configuration has {len(problems)} problem(s):\n{listed}")
    return config


def _consistently_left_out(mapping: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration without what belongs to entries that a null leaves out.

    These are the lam of such a data set, and such a regularizer in a family of the comparison.  A
    regularizer of which no lam remains is trained nowhere.
    """

    def left_out(key: str) -> list[str]:
        entries = mapping.get(key)
        pairs = entries.items() if isinstance(entries, dict) else []
        return [name for name, entry in pairs if entry is None]

    mapping = copy.deepcopy(mapping)
    match mapping:
        case {"regularizers": dict(regularizers)}:
            for entry in regularizers.values():
                match entry:
                    case {"lam": dict(lam)}:
                        lam |= dict.fromkeys(left_out("datasets"))
    match mapping:
        case {"comparison": {"families": dict(families)}}:
            for family, names in families.items():
                if isinstance(names, list):
                    left = [name for name in names if name not in left_out("regularizers")]
                    families[family] = left if left or not names else None
    return mapping


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return value


def _not_finite(value: Any, where: str = "") -> Iterator[str]:
    """Yield which numbers are infinite or NaN, also among the options that plugins take."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: got {value}, expected a finite number"
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _not_finite(part, f"{where}.{key}".removeprefix("."))
    if isinstance(value, list):
        for i, part in enumerate(value):
            yield from _not_finite(part, f"{where}[{i}]")


def _inconsistencies(config: Config) -> Iterator[str]:
    """Yield what is wrong with values that are right one by one."""
    for name, entry in config.datasets.items():
        for norm, radii in entry.headline:
            attacked = getattr(entry.epsilons, norm)
            for radius in radii:
                if radius not in attacked:
                    yield (
                        f"datasets.{name}.headline.{norm}: got {radius:g}, expected values of "
                        f"epsilons.{norm}, {_listed(attacked)}"
                    )
    if "none" not in config.regularizers:
        yield (
            "regularizers: expected the baseline among them, got none such; add the line "
            "`none: {penalty: none}`"
        )
    for name, entry in config.regularizers.items():
        yield from _regularizer_inconsistencies(config, name, entry)
    for name, entry in config.networks.items():
        if name in [*config.regularizers, "control"]:
            yield (
                f"networks.{name}: this name is that of a regularizer or of the masking checks' control; "
                "choose another"
            )
        if entry.dataset not in config.datasets:
            remedy = f"; `{name}: null` leaves the network out"
            yield (
                f"networks.{name}.dataset: got {entry.dataset!r}, expected a name of datasets: "
                f"{', '.join(config.datasets)}{closest(entry.dataset, config.datasets) or remedy}"
            )

    for section in ("evaluation", "stronger_attacks"):
        seen = set()
        for i, attack in enumerate(getattr(getattr(config, section), "attacks", [])):
            if (attack.attack, attack.norm) in seen:
                yield (
                    f"{section}.attacks[{i}]: the attack {attack.attack} with norm {attack.norm} "
                    "stands above already, expected once"
                )
            seen.add((attack.attack, attack.norm))
    for section in ("stronger_attacks", "masking", "curvature", "path"):
        images = getattr(getattr(config, section), "images", 0)
        if images > config.evaluation.images:
            yield (
                f"{section}.images: got {images}, expected at most evaluation.images, "
                f"{config.evaluation.images}"
            )

    if config.stronger_attacks and not config.selection:
        yield (
            "stronger_attacks: attacks selected networks, but there is no selection; add the section "
            "`selection:`, or leave this one out with `stronger_attacks: null`"
        )
    if config.recovery:
        yield from _missing_cells(config, "recovery", "regularizer", config.recovery.regularizer)
    if config.comparison:
        yield from _missing_cells(config, "comparison", "reference", config.comparison.reference)
        known = list(config.regularizers)
        seen = {config.comparison.reference}
        for family, names in config.comparison.families.items():
            for i, name in enumerate(names):
                if name in seen:
                    yield (
                        f"comparison.families.{family}[{i}]: {name} is the reference or stands in "
                        "another family already, expected once; delete it here"
                    )
                seen.add(name)
                if name not in known:
                    yield (
                        f"comparison.families.{family}[{i}]: got {name!r}, expected a name of "
                        f"regularizers: {', '.join(known)}{closest(name, known)}"
                    )
        if not config.selection:
            yield (
                "comparison: compares selected cells, but there is no selection; add the section "
                "`selection:`, or leave this one out with `comparison: null`"
            )
    if config.certificate:
        for i, cell in enumerate(config.certificate.regularizers):
            where = f"certificate.regularizers[{i}]"
            yield from _missing_cells(config, where, "name", cell.name)
    if "ddn" not in {attack.attack for attack in config.evaluation.attacks}:
        for section in ("certificate", "path"):
            if getattr(config, section):
                yield (
                    f"{section}: takes the perturbations of the attack ddn, which is not among "
                    "evaluation.attacks; add `{attack: ddn, norm: l2}` to these, or leave this "
                    f"section out with `{section}: null`"
                )


def _regularizer_inconsistencies(config: Config, name: str, entry: Regularizer) -> Iterator[str]:
    where = f"regularizers.{name}"
    if (name == "none") != (entry.penalty == "none"):
        yield (
            f"{where}.penalty: got {entry.penalty!r}, expected the name none for the penalty none "
            "and for no other: it is the baseline"
        )
    elif name != "none" and "lam" not in entry.model_fields_set:
        yield f"{where}: missing lam; add the line `lam: [...]`"
    elif name == "none" and entry.step_cost != 1:
        yield f"{where}.step_cost: the baseline's step is the unit; delete the line"
    elif name == "none" and isinstance(entry.lam, dict):
        yield f"{where}.lam: the baseline is trained on every data set; delete the line"
    if name == "control":
        yield f"{where}: this name is that of the masking checks' control; choose another"
    for dataset in entry.lam if isinstance(entry.lam, dict) else []:
        if dataset not in config.datasets:
            remedy = f"; `{name}: null` leaves the regularizer out"
            yield (
                f"{where}.lam: got {dataset!r}, expected names of datasets: "
                f"{', '.join(config.datasets)}{closest(dataset, config.datasets) or remedy}"
            )
    for dataset in config.datasets:
        lams = entry.lams(dataset)
        if len(config.lam_texts(name, dataset)) < len(lams):
            yield (
                f"{where}.{entry.lam_key(dataset)}: got {lams}, expected values that differ in "
                "their first six digits, because these name the cells"
            )


def _missing_cells(config: Config, where: str, key: str, name: str) -> Iterator[str]:
    """Yield why a section cannot have this regularizer: it takes it on every data set."""
    remedy = f"; `{where.partition('.')[0]}: null` leaves this section out"
    known = list(config.regularizers)
    if name not in known:
        yield (
            f"{where}.{key}: got {name!r}, expected a name of regularizers: {', '.join(known)}"
            f"{closest(name, known) or remedy}"
        )
        return
    missing = [dataset for dataset in config.datasets if name not in config.trained_on(dataset)]
    if missing:
        yield (
            f"{where}.{key}: got {name!r}, which is not trained on {', '.join(missing)}, expected "
            f"a regularizer with lam for every data set{remedy}"
        )


def _plugin_problems(config: Config) -> Iterator[str]:
    """Yield what data sets, networks and penalties say of their settings."""
    from input_hessian.certificate import curvature_bound

    right = set()
    for name, entry in config.regularizers.items():
        if "lam" in entry.model_fields_set or name == "none":
            found = list(_penalty_problems(f"regularizers.{name}", entry))
            yield from found
            right |= set() if found else {name}
    for where, name, lams in config.side_lams:
        if name in right:
            entry = config.regularizers[name].model_copy(update={"lam": lams})
            yield from _penalty_problems(where, entry)

    datasets = {}
    for name, entry in config.datasets.items():
        try:
            datasets[name] = load_plugin("dataset", config.dataset_file(name)).DATASET
        except (UserError, AttributeError) as error:
            hint = "" if entry.file else "; for one of your own, add the line `file: <path>.py`"
            yield f"datasets.{name}: {str(error).removeprefix('dataset: ')}{hint}"

    for section, split in SPLITS.items():
        images = getattr(getattr(config, section), "images", 0)
        smallest = min(
            datasets, key=lambda name, split=split: datasets[name].sizes[split], default=""
        )
        if datasets and images > datasets[smallest].sizes[split]:
            yield (
                f"{section}.images: got {images}, expected at most the "
                f"{datasets[smallest].sizes[split]} {split} images of {smallest}"
            )

    for name, dataset in datasets.items():
        classes = len(dataset.class_names)
        attacks = {attack["attack"] for attack in config.attacks + config.more_attacks}
        if classes < 4 and "apgd-t" in attacks:
            yield (
                f"datasets.{name}: has {classes} classes, expected at least 4 for the attack "
                "apgd-t, whose loss compares four logits; leave this attack out"
            )
        yield from _radius_problems(config, name, dataset.image_shape)
        yield from _model_problems("model", config.model, dataset.image_shape, classes)
        yield from _network_problems(config, name, dataset.image_shape, classes)
    if config.certificate:
        # Whether there is a certificate depends on the layers, and for one pixel it is found at once.
        where, settings = "certificate.model", config.certificate.model
        yield from _model_problems(where, settings, [1, 1, 1], 2, check=curvature_bound)


def _radius_problems(config: Config, dataset: str, image_shape: Sequence[int]) -> Iterator[str]:
    """Yield which radii reach beyond every image: those of 0 to 255 grey levels, for example."""
    radii = [
        (f"datasets.{dataset}.epsilons.{norm}", norm, radii)
        for norm, radii in config.datasets[dataset].epsilons
    ]
    radii += [
        (
            f"regularizers.{name}.{entry.lam_key(dataset)}",
            entry.options.get("norm"),
            entry.lams(dataset),
        )
        for name, entry in config.regularizers.items()
        if entry.penalty in ("adversarial", "trades") and entry.lams(dataset)
    ]
    for where, norm, values in radii:
        if problem := beyond_every_image(norm, max(values), image_shape):
            yield f"{where}: {problem}"


class _WhatYamlHolds(GenerateJsonSchema):
    """Leaves out the options that are functions."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Any:
        raise PydanticOmit


def _penalty_problems(where: str, entry: Regularizer) -> Iterator[str]:
    """Yield what the penalty's class says of its options, at every lam."""
    from input_hessian.experiment.penalty import penalty_class

    if isinstance(entry.lam, dict):
        for dataset, lams in entry.lam.items():
            one = entry.model_copy(update={"lam": lams})
            for problem in _penalty_problems(where, one):
                yield problem.replace(f"{where}.lam[", f"{where}.lam.{dataset}[", 1)
        return
    for i, lam in enumerate(entry.lam):
        options = {"lam": lam, **entry.options}
        try:
            adapter = TypeAdapter(penalty_class(entry.penalty))
            adapter.validate_json(json.dumps(options), strict=True)
        except ValidationError as error:
            schema = adapter.json_schema(schema_generator=_WhatYamlHolds)
            schema["properties"] = {key: {} for key in Regularizer.model_fields} | schema[
                "properties"
            ]
            for problem in explain(error, schema, options, where):
                yield problem.replace(f"{where}.lam:", f"{where}.lam[{i}]:", 1)
        except UserError as error:
            yield f"{where}.{error}"
        except Exception as error:  # whatever a user's penalty raises
            yield f"{where}: {error}"


def _model_problems(
    where: str,
    settings: dict[str, Any],
    image_shape: Sequence[int],
    classes: int,
    check: Callable[[Any], object] = lambda network: None,
) -> Iterator[str]:
    """Yield why a network cannot be built for such images, or why ``check`` refuses it."""
    options = {key: value for key, value in settings.items() if key != "architecture"}
    try:
        adapter = TypeAdapter(load_plugin("architecture", settings["architecture"]).build)
        content = {"image_shape": image_shape, "classes": classes, **options}
        check(adapter.validate_json(json.dumps(content), strict=True))
    except ValidationError as error:
        schema = adapter.json_schema()
        known = schema["properties"].items()
        schema["properties"] = {"architecture": {}} | dict(list(known)[2:])
        yield from explain(error, schema, options, where)
    except UserError as error:
        yield f"{where}.{error}"
    except Exception as error:  # whatever a user's network raises
        yield f"{where}: {str(error).removeprefix('certificate: ')}"


def _network_problems(
    config: Config, dataset: str, image_shape: Sequence[int], classes: int
) -> Iterator[str]:
    """Yield which networks of one's own cannot be had."""
    for name, entry in config.networks.items():
        if entry.dataset != dataset:
            continue
        from input_hessian.experiment.checkpoints import load_checkpoint  # imports the attacks

        settings = {"architecture": entry.architecture, "image_shape": image_shape}
        try:
            load_checkpoint(entry.checkpoint, **settings, classes=classes, options=entry.options)
        except UserError as error:
            yield f"networks.{name}: {error}"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration file, which need not be complete.

    What is merged over config.yaml states only what differs: no key of a mapping is required, and a
    null leaves an entry or a section out.  The entries of lists are not merged, but complete.
    """
    schema = Config.model_json_schema()
    _relax(schema, schema, set())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _relax(node: dict[str, Any], schema: dict[str, Any], seen: set[int]) -> None:
    node = resolved(node, schema)
    if id(node) in seen:
        return
    seen.add(id(node))
    node.pop("required", None)
    node.pop("minProperties", None)
    for part in node.get("properties", {}).values():
        _relax(part, schema, seen)
    for choice in node.get("oneOf", []):
        _relax(choice, schema, seen)
    for name, entry in node.get("patternProperties", {}).items():
        _relax(entry, schema, seen)
        node["patternProperties"][name] = {"anyOf": [entry, {"type": "null"}]}
        node["additionalProperties"] = False
    if isinstance(entry := node.get("additionalProperties"), dict):
        _relax(entry, schema, seen)
        node["additionalProperties"] = {"anyOf": [entry, {"type": "null"}]}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
