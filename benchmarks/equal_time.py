"""Train every way to spend a given time on the Hessian penalty, and its rivals, and attack each.

Which part of a batch should the penalty see, and how well should it see it?  Every setting trains
for about as long as :data:`BUDGET` epochs of plain training, so a cheaper step means more epochs.
Judged on validation images, never on test images: clean accuracy, robust accuracy under PGD, and
how much of the true norm the penalty's own estimator sees on the network that it trained.

Every setting is tried with one seed and its first lam; one of each kind goes on with more seeds there,
and so do the rivals: :data:`FINALISTS`.  Further lams, with one seed, go on until a method's curve
turns: that is where the grids of ``config.yaml`` come from.

Every finished training adds a line to ``results/equal_time.csv``; a second start continues.  The
time of a training is its number of epochs times the cost of its step in ``results/step_cost.csv``,
measured side by side on an idle machine: the seconds of a long run are those of a busy one.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from pathlib import Path
from typing import NamedTuple

import torch
from readme import write_table

from input_hessian import (
    AdversarialTraining,
    Estimator,
    GradientPenalty,
    HessianPenalty,
    NoPenalty,
    Penalty,
    derivatives,
    operator_norm,
)
from input_hessian.experiment import models
from input_hessian.experiment.attacks import AttackSettings, run_attack
from input_hessian.experiment.data import Split, evaluation_images, load
from input_hessian.experiment.provenance import commit
from input_hessian.experiment.training import TrainingSettings, train

HERE = Path(__file__).parent
BUDGET = 16  # epochs of plain training that take as long as every training here
IMAGES, NORM_IMAGES = 1000, 256  # validation images attacked, and of which the norm is computed
RADII = {  # the pipeline's headline radii and half of them
    "mnist": {"linf": [0.1, 0.2], "l2": [1, 2]},
    "fashion_mnist": {"linf": [0.05, 0.1], "l2": [0.5, 1]},
}
SEEDS = [0, 1, 2]


class Setting(NamedTuple):
    """One way to train.

    Attributes:
        name: what the figure calls it.
        penalty: ``lam -> Penalty``.
        epochs: as many as take :data:`BUDGET` epochs of plain training, by the step's cost.
        lams: of each dataset, the most informative first.
    """

    name: str
    penalty: type[Penalty]
    options: dict
    epochs: int
    lams: dict[str, list[float]]


STRENGTHS = {"mnist": [3, 1], "fashion_mnist": [1, 3]}
ONE = {"mnist": [3], "fashion_mnist": [1]}
OF_SQUARE = {"mnist": [30, 100], "fashion_mnist": [30, 10, 3]}
CURVE = {"mnist": [3, 1, 10], "fashion_mnist": [1, 3, 0.3]}
CURVE_OF_GRADIENT = {"mnist": [1, 3, 10], "fashion_mnist": [1, 3, 0.3]}
L2_TRAINED = {"mnist": [1, 2], "fashion_mnist": [0.5, 1]}
LINF_TRAINED = {"mnist": [0.2, 0.1], "fashion_mnist": [0.05, 0.1]}


def _hessian(
    fraction: float, method: str, start: str, hvps: int, epochs: int, lams=STRENGTHS
) -> Setting:
    part = "all images" if fraction == 1 else f"1/{round(1 / fraction)} of the images"
    return Setting(
        f"{part}, {method} {hvps} from {start}",
        HessianPenalty,
        {"fraction": fraction, "estimator": Estimator(method, start, hvps)},
        epochs,
        lams,
    )


FINALISTS = [
    _hessian(1 / 8, "lanczos", "gradient", 4, 9, CURVE),
    _hessian(1 / 4, "power", "softmax", 2, 8),
    _hessian(1 / 8, "lanczos", "random", 6, 8),
    _hessian(1, "power", "softmax", 2, 3),
    Setting("gradient penalty", GradientPenalty, {}, 8, CURVE_OF_GRADIENT),
    Setting(
        "PGD-7 training",
        AdversarialTraining,
        {"norm": "l2"},
        2,
        {n: L2_TRAINED[n][:1] for n in RADII},
    ),
    Setting("PGD-3 training", AdversarialTraining, {"norm": "l2", "steps": 3}, 4, L2_TRAINED),
    Setting("plain", NoPenalty, {}, BUDGET, {name: [0] for name in RADII}),
]
SETTINGS = [
    *FINALISTS,
    Setting(
        "PGD-3 training, linf", AdversarialTraining, {"norm": "linf", "steps": 3}, 4, LINF_TRAINED
    ),
    Setting("squared gradient penalty", GradientPenalty, {"squared": True}, 8, OF_SQUARE),
    Setting("gradient penalty, 1/8 of the images", GradientPenalty, {"fraction": 1 / 8}, 14, ONE),
    # No advantage over a finalist of the same kind.
    _hessian(1 / 8, "lanczos", "gradient", 6, 8, {"mnist": [3], "fashion_mnist": [1, 3]}),
    _hessian(1 / 4, "lanczos", "gradient", 4, 7, ONE),
    _hessian(1 / 8, "power", "softmax", 2, 10, ONE),
    _hessian(1 / 2, "power", "softmax", 2, 5, ONE),
]

COLUMNS = ["dataset", "setting", "lam", "seed", "epochs", "status", "clean"]
COLUMNS += ["linf_small", "linf_large", "l2_small", "l2_large", "norm_seen", "true_norm", "seconds"]
KEY = COLUMNS[:4]


def trainings():
    """Yield ``(dataset, setting, lam, seed)``, such that a broken-off run is worth the most."""
    for setting, dataset in itertools.product(SETTINGS, RADII):
        yield dataset, setting, setting.lams[dataset][0], SEEDS[0]
    for seed, setting, dataset in itertools.product(SEEDS[1:], FINALISTS, RADII):
        yield dataset, setting, setting.lams[dataset][0], seed
    for setting, dataset in itertools.product(SETTINGS, RADII):
        for lam in setting.lams[dataset][1:]:
            yield dataset, setting, lam, SEEDS[0]


def measure(dataset: str, setting: Setting, lam: float, seed: int, data: Path) -> dict:
    """Train one network, attack it, and return one row of the table."""
    training, validation = load(data, "train"), load(data, "validation")
    penalty = setting.penalty(lam=lam, **setting.options)
    shape = {"image_shape": tuple(training.images.shape[1:]), "classes": 10}
    network, result = train(
        lambda: models.build(architecture="cnn", width=16, activation="softplus", beta=10, **shape),
        penalty,
        (training.images, training.labels),
        (validation.images, validation.labels),
        TrainingSettings(setting.epochs, batch_size=256, learning_rate=0.003, seed=seed),
        device=torch.device("cpu"),
    )
    row = {"dataset": dataset, "setting": setting.name, "lam": lam, "seed": seed}
    row |= {"epochs": setting.epochs, "status": result.status}
    row["seconds"] = sum(epoch["seconds"] for epoch in result.curve)
    if result.status != "finished":
        return row
    row["clean"] = result.curve[-1]["validation_accuracy"]
    chosen = evaluation_images(data, IMAGES, "validation")
    for norm, radii in RADII[dataset].items():
        attack = AttackSettings("pgd", norm, steps=40)
        record = run_attack(network, chosen.images, chosen.labels, attack, radii, seed=seed)
        robust = record.robust.double().mean(1).tolist()
        row |= dict(zip((f"{norm}_small", f"{norm}_large"), robust, strict=True))
    return row | norms(network.double(), penalty, Split(*(f[:NORM_IMAGES] for f in chosen)))


def norms(network, penalty: Penalty, chosen: Split) -> dict[str, float]:
    """Return the mean norm and how much of it the penalty's estimator sees, in float64."""
    hessian = derivatives(network, chosen.images.double(), chosen.labels)
    generator = torch.Generator().manual_seed(0)
    truth = operator_norm(
        hessian, method="lanczos", start="random", hvps=80, tolerance=1e-3, generator=generator
    ).norm.mean()
    seen = {}
    if isinstance(penalty, HessianPenalty):
        found = penalty.estimator.differentiable_norm(hessian, generator).mean()
        seen = {"norm_seen": (found / truth).item()}
    return {"true_norm": truth.item(), **seen}


# ---- results -------------------------------------------------------------------------------------

COLOURS = ["#0072B2", "#D55E00", "#009E73", "black", "#CC79A7", "#E69F00", "#56B4E9", "0.5"]
MARKERS = "osD^*vP<XhdpH>81"
# Steps that cost the same, of which step_cost.py times one.
SAME_STEP = {
    "PGD-3 training, linf": "PGD-3 training",
    "squared gradient penalty": "gradient penalty",
}
LARGEST_ERROR = 0.3  # of what is drawn: a network that learnt nothing would squeeze the rest


def summarize(table, costs):
    """Return the mean over seeds of every setting, and the time of its training.

    Args:
        table: rows of ``equal_time.csv``.
        costs: rows of ``step_cost.csv``.

    Returns:
        A row per dataset, setting and lam; ``time`` in epochs of plain training, spreads as standard
        deviations over the seeds.
    """
    costs = costs[
        (costs["model"] == "cnn") & (costs["shape"] == "1x28x28") & (costs["batch"] == 256)
    ]
    ratio = costs.set_index("variant")["ratio"]
    measures = COLUMNS[COLUMNS.index("clean") : COLUMNS.index("seconds")]
    groups = table.groupby(["dataset", "setting", "lam"], sort=False)
    means = groups[measures].mean()
    means["seeds"] = groups.size()
    means["finished"] = groups["status"].agg(lambda status: (status == "finished").sum())
    means[["linf_spread", "l2_spread"]] = groups[["linf_large", "l2_large"]].std()
    means["epochs"] = groups["epochs"].first()
    means = means.reset_index()
    means["time"] = means["epochs"] * means["setting"].replace(SAME_STEP).map(ratio)
    return means


def draw(means, path: Path) -> None:
    """Draw robust accuracy against clean error, a line per setting through its lams."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator, NullLocator

    from input_hessian.experiment.plotting import NORMS, dataset_title

    plt.style.use(HERE.parent / "src/input_hessian/experiment/style.mplstyle")
    means = means[1 - means["clean"] <= LARGEST_ERROR]
    names = [setting.name for setting in SETTINGS if (means["setting"] == setting.name).any()]
    figure, grid = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")
    for row, (dataset, radii) in zip(grid, RADII.items(), strict=True):
        for axes, (norm, (_, radius)) in zip(row, radii.items(), strict=True):
            for k, name in enumerate(names):
                rows = means[(means["dataset"] == dataset) & (means["setting"] == name)]
                rows = rows.sort_values("lam")
                x, y = 100 * (1 - rows["clean"]), 100 * rows[f"{norm}_large"]
                rival = not name.endswith(("softmax", "gradient", "random"))
                axes.plot(
                    x,
                    y,
                    "--" if rival else "-",
                    color=COLOURS[k % len(COLOURS)],
                    marker=MARKERS[k],
                    label=name,
                )
            axes.set(xscale="log", xlabel="clean error (%)", ylabel="robust accuracy (%)")
            axes.set_title(f"{dataset_title(dataset)}, {NORMS[norm]} {radius:g}")
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(
        f"Equal training time: that of about {BUDGET} epochs of plain training. PGD-40 on "
        f"{IMAGES} validation images,\nmean of up to {means['seeds'].max()} seeds; every point a λ"
    )
    figure.savefig(path)
    plt.close(figure)


def markdown(means) -> str:
    """Return the README's table."""
    lines = [
        "| dataset | setting | λ | seeds | time | clean | l∞ | l2 | mean ‖H‖ | seen |",
        "|---" * 10 + "|",
    ]

    def percent(value: float, spread: float = math.nan) -> str:
        return f"{100 * value:.1f}" + (f" ± {100 * spread:.1f}" if spread == spread else "")

    for row in means.sort_values(["dataset", "lam"], kind="stable").itertuples():
        numbers = [percent(row.clean), percent(row.linf_large, row.linf_spread)]
        numbers += [percent(row.l2_large, row.l2_spread)]
        seen = "" if row.norm_seen != row.norm_seen else f"{row.norm_seen:.3f}"
        time = "" if row.time != row.time else f"{row.time:.1f}"  # a step not timed yet
        cells = [row.dataset, row.setting, f"{row.lam:g}", row.seeds, time]
        cells += [*numbers, f"{row.true_norm:.3f}", seen]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"), help="<dataset>.safetensors")
    parser.add_argument("--datasets", nargs="+", choices=RADII, default=list(RADII))
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--redraw", action="store_true", help="only redraw from the tables")
    arguments = parser.parse_args()
    table = arguments.output / "equal_time.csv"
    if not arguments.redraw:
        measure_all(arguments, table)

    import pandas as pd

    means = summarize(pd.read_csv(table), pd.read_csv(HERE / "results/step_cost.csv"))
    draw(means, table.with_suffix(".png"))
    write_table("equal_time.py", markdown(means))


def measure_all(arguments: argparse.Namespace, table: Path) -> None:
    """Train and measure what is not in the table yet."""
    torch.set_num_threads(1)
    done = set()
    if table.exists():
        with table.open() as file:
            done = {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}
    else:
        table.write_text(",".join(COLUMNS) + "\n")
    print(f"commit {commit()}, PyTorch {torch.__version__}, {len(done)} trainings done", flush=True)
    for dataset, setting, lam, seed in trainings():
        if (
            dataset not in arguments.datasets
            or (dataset, setting.name, str(lam), str(seed)) in done
        ):
            continue
        row = measure(dataset, setting, lam, seed, arguments.data / f"{dataset}.safetensors")
        with table.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
