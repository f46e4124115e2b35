"""Every figure, drawn from small tables; and what the figures show of them."""

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plot_autoattack
import plot_headline
import plot_loss_surface
import pytest
import torch
from helpers import tables
from helpers.repository import ROOT
from PIL import Image
from safetensors.torch import save_file

from input_hessian.experiment import datasets, models, plotting

PUBLISHED = ROOT / "workflow/resources/published.csv"
FIGURES = sorted(
    path.stem.removeprefix("plot_") for path in ROOT.glob("workflow/scripts/plot_*.py")
)
RUN = ["none", *plotting.REGULARIZERS]
MODEL = {"architecture": "mlp", "width": 4, "activation": "softplus", "beta": 10}
SMALL = {"none": [0.0], "hessian": [0.1]}
# What a table of results may look like, and still have to become a figure.
CASES = {
    "usual": {"names": ("mnist", "mine")},
    "nothing finished": {"status": "diverged"},
    "one of each": {"seeds": (0,), "grid": SMALL, "epsilons": {"linf": [0.0, 0.1]}},
    "only plain training": {"grid": {"none": [0.0]}},
    "every regularizer": {"grid": {name: [1.0] for name in [*RUN, "mine"]}},
    "no survivor": {"grid": SMALL, "share": 0.0, "value": 1.0},
    "all survive": {"grid": SMALL, "share": 1.0, "distance": np.inf},
    "plain training diverged": {"diverged": ("none",)},
    "dead networks": {"grid": SMALL, "scale": 0.0, "share": 0.1, "distance": np.inf},
    "no radius predicted": {"grid": SMALL, "predicted": 0.0},
    "missing values": {"grid": SMALL, "missing": True, "seeds": (0,)},
}


class Experiment:
    """The files of an experiment, as the rules name them, in a folder."""

    def __init__(
        self,
        folder: Path,
        names=("digits",),
        status="finished",
        seeds=(0, 1),
        grid=tables.GRID,
        share=None,
        value=0.0,
        distance=None,
        epsilons=tables.EPSILONS,
        missing=False,
        shape=(1, 8, 8),
        diverged=(),
        scale=1.0,
        predicted=None,
    ):
        self.folder, self.names, self.status, self.missing = folder, names, status, missing
        self.distance, self.shape, self.scale = distance, shape, scale
        self.predicted, self.diverged = predicted, diverged
        cells = tables.cells(grid, seeds, names, status)
        cells.loc[cells["regularizer"].isin(diverged), "status"] = "diverged"
        robustness = tables.robustness(cells, epsilons=epsilons, share=share)
        if missing:
            cells["test_low"] = cells["test_high"] = np.nan
            robustness["low"] = robustness["high"] = np.nan
        selection = tables.selection(cells)
        finished = status == "finished"
        self.cells = self.table("cells", cells)
        self.robustness = self.table("robustness", robustness)
        self.selection = self.table("selection", selection)
        self.curves = self.table("curves", tables.curves(cells) if finished else cells[:0])
        self.autoattack = self.table("autoattack", tables.autoattack(robustness, selection))
        masking = tables.masking(cells, value)
        self.masking = self.table("masking", masking if finished else masking[:0])
        self.curvature = self.table(
            "curvature", tables.curvature(cells, np.nan if missing else scale)
        )
        self.cost = [
            self.table(f"cost_{name}", tables.cost(cells[cells["dataset"] == name]))
            for name in names
        ]
        self.recovery = [
            self.table(f"recovery_{lam}", tables.recovery(lam)[: None if finished else 0])
            for lam in (0.1, 1.0)
        ]
        of_seed = cells[(cells["dataset"] == names[0]) & (cells["seed"] == seeds[0])]
        columns = ["dataset", "regularizer", "lam", "seed"]
        self.shown = of_seed.drop_duplicates("regularizer")[columns].to_dict("records")

    def table(self, name: str, table: pd.DataFrame) -> Path:
        path = self.folder / f"{name}.csv"
        table.to_csv(path, index=False)
        return path

    def finished(self, cell: dict) -> bool:
        return self.status == "finished" and cell["regularizer"] not in self.diverged

    def of_cells(self, name: str, make) -> list[Path]:
        """Write one file per shown cell; `make` gets the path and the cell."""
        paths = []
        for cell in self.shown:
            paths.append(self.folder / cell["regularizer"] / name)
            paths[-1].parent.mkdir(exist_ok=True)
            make(paths[-1], cell)
        return paths

    def parquet(self, name: str, make) -> list[Path]:
        def write(path, cell):
            table = make(cell)
            if self.missing:
                table["loss"] = table["predicted_radius"] = np.nan
            if self.predicted is not None and "predicted_radius" in table:
                table["predicted_radius"] = self.predicted
            (table if self.finished(cell) else table[:0]).to_parquet(path)

        return self.of_cells(f"{name}.parquet", write)

    def perturbations(self) -> list[Path]:
        def make(cell):
            table = tables.perturbations(cell)
            return table if self.distance is None else table.assign(distance=self.distance)

        return self.parquet("perturbations", make)

    def certificates(self) -> list[Path]:
        def make(cell):
            table = tables.perturbations(cell).assign(certified_radius=0.1)
            return table if self.distance is None else table.assign(distance=self.distance)

        return self.parquet("certificate", make)

    def training(self) -> list[Path]:
        return self.of_cells("training.json", lambda path, cell: path.write_text(json.dumps(cell)))

    def models(self) -> list[Path]:
        settings = MODEL | {"image_shape": self.shape, "classes": 3}

        def write(path, cell):
            torch.manual_seed(0)
            status = "finished" if self.finished(cell) else "diverged"
            models.save_model(models.build(**settings), settings, path, status)

        return self.of_cells("model.safetensors", write)

    def examples(self) -> list[Path]:
        images = torch.rand(3, *self.shape, generator=torch.Generator().manual_seed(0))
        tensors = {"images": images, "labels": torch.arange(3)}
        if self.status == "finished":
            for norm in ("linf", "l2"):
                tensors[f"pgd_{norm}_images"] = images.clone()
                tensors[f"pgd_{norm}_epsilon"] = torch.tensor([0.0, 0.1, torch.inf]).double()
                tensors[f"pgd_{norm}_prediction"] = torch.tensor([1, 2, 2])
        return self.of_cells("examples.safetensors", lambda path, cell: save_file(tensors, path))

    def data(self) -> Path:
        path, tensors = self.folder / "data.safetensors", {}
        for split in datasets.SPLITS:
            size = (9, *self.shape)
            generator = torch.Generator().manual_seed(1)
            pixels = torch.randint(256, size, generator=generator, dtype=torch.uint8)
            tensors[f"{split}_images"] = pixels
            tensors[f"{split}_labels"], tensors[f"{split}_index"] = (
                torch.arange(9) % 3,
                torch.arange(9),
            )
        provenance = {"class_names": ["ant", "bee", "cat"], "sha256": datasets.checksums(tensors)}
        datasets.save(tensors, path, provenance)
        return path

    def arguments(self, figure: str) -> dict:
        """Return what the rule of a figure passes to its script."""
        dataset = {"dataset": self.names[0]}
        settings = {"settings": {"headline": dict.fromkeys(self.names, tables.HEADLINE)}}
        cost, recovery = {"cost": self.cost}, {"recovery": self.recovery}
        robustness, selection = {"robustness": self.robustness}, {"selection": self.selection}
        cells, curvature = {"cells": self.cells}, {"curvature": self.curvature}
        match figure:
            case "autoattack":
                return {"table": self.autoattack}
            case "certificate":
                return cells | dataset | {"certificates": self.certificates()}
            case "cost":
                return cost
            case "curvature":
                return curvature | dataset
            case "examples":
                files = {"examples": self.examples(), "training": self.training()}
                return files | {"data": self.data(), "norm": "l2"} | dataset
            case "headline":
                return robustness | selection | {"reference": "hessian"}
            case "learning_curves":
                return {"curves": self.curves} | dataset
            case "loss_surface":
                files = {"models": self.models(), "training": self.training()}
                return files | {"data": self.data(), "images": 6, "radii": [0.5]} | dataset
            case "masking":
                return {"masking": self.masking}
            case "pareto":
                return cells | robustness | settings
            case "radius":
                measured = self.parquet("curvature", tables.image_curvature)
                files = {"curvature": measured, "perturbations": self.perturbations()}
                return files | {"table": self.curvature} | dataset
            case "recovery":
                return recovery | dataset
            case "robustness":
                return robustness | {"published": PUBLISHED} | dataset
            case "tradeoff":
                return selection | cells | robustness | cost | settings
        raise AssertionError(f"plot_{figure}.py: add a case for it here")


def draw(figure: str, experiment: Experiment) -> tuple[Path, Path]:
    png, pdf = (experiment.folder / f"figures/figure.{suffix}" for suffix in ("png", "pdf"))
    script = importlib.import_module(f"plot_{figure}")
    script.main(**experiment.arguments(figure), png=png, pdf=pdf)
    return png, pdf


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def contents(arguments: dict) -> str:
    """Return what a script reads, wherever its files are."""
    paths = [value for value in arguments.values() if isinstance(value, (Path, list))]
    others = {key: value for key, value in arguments.items() if not isinstance(value, (Path, list))}
    flat = [path for value in paths for path in (value if isinstance(value, list) else [value])]
    return repr([others, [path.read_bytes() for path in flat if isinstance(path, Path)]])


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(["usual", "nothing finished"], id="common"),
        pytest.param([*CASES], id="every", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("error", "ignore:Tight layout not applied")  # as in plotting
def test_every_figure_is_drawn_from_whatever_an_experiment_yields(figure, cases, tmp_path):
    drawn = set()
    for case in cases:
        options = CASES[case]
        folder = tmp_path / case
        folder.mkdir()
        experiment = Experiment(folder, **options)
        if (read := contents(experiment.arguments(figure))) in drawn:
            continue  # the figure does not show in what this case differs
        drawn.add(read)
        try:
            with plt.rc_context({"savefig.dpi": 60, "pdf.fonttype": 3}):  # in half the time
                png, pdf = draw(figure, experiment)
        except BaseException as error:
            error.add_note(f"figure {figure}, case: {case}")
            raise
        assert pdf.read_bytes().startswith(b"%PDF"), case
        with Image.open(png) as image:
            assert image.width > 150, case
            assert len(image.convert("L").getcolors()) > 2, case  # not blank
        assert not plt.get_fignums(), case  # closed


@pytest.mark.parametrize("figure", ["examples", "loss_surface"])
def test_colour_images_are_drawn_in_colour(figure, tmp_path):
    png, _ = draw(figure, Experiment(tmp_path, names=("mine",), shape=(3, 6, 5)))
    with Image.open(png) as image:
        red, green, blue = np.asarray(image.convert("RGB"), dtype=int).reshape(-1, 3).T
    assert (np.abs(red - green) + np.abs(green - blue) > 60).mean() > 0.01


@pytest.mark.parametrize("figure", ["headline", "radius", "masking"])
def test_equal_tables_give_equal_bytes(figure, tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
    first, second = (draw(figure, Experiment(folder)) for folder in folders)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_recovery_leaves_the_untrained_network_out(tmp_path):
    figures = []
    for name, first in (("first", 0.2), ("second", 0.9)):
        (tmp_path / name).mkdir()
        experiment = Experiment(tmp_path / name)
        for path in experiment.recovery:
            table = pd.read_csv(path)
            table.loc[table["step"] == 0, ["of_mean", "median"]] = first
            table.to_csv(path, index=False)
        png, _ = draw("recovery", experiment)
        figures.append(png.read_bytes())
    assert figures[0] == figures[1]


def test_a_matplotlibrc_of_the_user_changes_nothing(tmp_path):
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: red\n")
    expected, _ = draw("cost", Experiment(tmp_path))
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "workflow/scripts")!r})
from pathlib import Path
import plot_cost
plot_cost.main([Path("cost_digits.csv")], png=Path("again.png"), pdf=Path("again.pdf"))
"""
    environment = os.environ | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "again.png").read_bytes() == expected.read_bytes()


def robustness(rows):
    columns = ["dataset", "regularizer", "lam", "seed", "attack", "epsilon", "robust_accuracy"]
    return pd.DataFrame(rows, columns=columns).assign(norm="linf", low=0.1, high=0.9)


def selection(*rows):
    return pd.DataFrame(rows, columns=["dataset", "regularizer", "lam", "selected"])


def test_headline_draws_the_worst_case_of_selected_cells_with_the_interval_over_seeds():
    chosen = selection(("mnist", "hessian", 1.0, False), ("mnist", "hessian", 3.0, True))
    rows = [
        ("mnist", "hessian", lam, seed, attack, epsilon, accuracy)
        for lam, attack, epsilon, accuracies in [
            (3.0, "ensemble", 0.2, (0.5, 0.51, 0.52)),
            (3.0, "ensemble", 0.1, (0.7, 0.7, 0.7)),
            (3.0, "worst", 0.2, (0.9, 0.9, 0.9)),
            (1.0, "ensemble", 0.2, (0.8, 0.8, 0.8)),
        ]
        for seed, accuracy in enumerate(accuracies)
    ]
    table = plot_headline.selected_curves(robustness(rows), chosen)
    assert table["epsilon"].tolist() == [0.1, 0.2]
    assert table["mean"].tolist() == pytest.approx([0.7, 0.51])
    # t(0.975, 2) = 4.3027, standard error 0.01 / sqrt(3)
    assert table["high"][1] == pytest.approx(0.51 + 4.3027 * 0.01 / 3**0.5, abs=1e-6)
    assert table["low"][1] == pytest.approx(0.51 - 4.3027 * 0.01 / 3**0.5, abs=1e-6)


def test_headline_has_no_band_for_one_seed():
    rows = robustness([("mnist", "none", 0.0, 0, "ensemble", 0.1, 0.5)])
    table = plot_headline.selected_curves(rows, selection(("mnist", "none", 0.0, True)))
    assert table["mean"].tolist() == [0.5]
    assert table[["low", "high"]].isna().all(axis=None)


def test_legend_states_the_penalty_strength_of_each_data_set_where_they_differ():
    rows = [
        ("mnist", "none", 0.0),
        ("mnist", "gradient", 3.0),
        ("mnist", "taylor", 1.0),
        ("mnist", "hessian-paper", 1.0),
        ("fashion_mnist", "none", 0.0),
        ("fashion_mnist", "gradient", 0.3),
        ("fashion_mnist", "taylor", 1.0),
    ]
    curves = pd.DataFrame(rows, columns=plot_headline.KEYS)
    assert plot_headline.labels(curves, ["mnist", "fashion_mnist"]) == {
        "none": "none",
        "gradient": "gradient, λ = 3 / 0.3",
        "taylor": "taylor, λ = 1",
        "hessian-paper": "hessian-paper, λ = 1 / \N{EN DASH}",
    }


def test_attacks_are_shown_by_what_they_overlook():
    columns = ["dataset", "norm", "epsilon", "regularizer", "lam", "attack", "mean"]
    rows = [
        ("mnist", "linf", 0.2, "none", 0.0, "fgsm", 0.5),
        ("mnist", "linf", 0.2, "none", 0.0, "apgd-t", 0.22),
        ("mnist", "linf", 0.2, "none", 0.0, "ensemble", 0.2),
        ("mnist", "l2", 2.0, "none", 0.0, "ddn", 0.4),
        ("mnist", "l2", 2.0, "none", 0.0, "ensemble", 0.4),
    ]
    wide = plot_autoattack.above_worst_case(pd.DataFrame(rows, columns=columns))
    assert wide["norm"].tolist() == ["linf", "l2"]  # as in the table
    assert wide["ensemble"].tolist() == pytest.approx([20, 40])
    assert wide["fgsm"].tolist() == pytest.approx([30, np.nan], nan_ok=True)
    assert wide["apgd-t"].tolist() == pytest.approx([2, np.nan], nan_ok=True)
    assert wide["ddn"].tolist() == pytest.approx([np.nan, 0], nan_ok=True)
    assert wide["square"].isna().all()


def test_surface_shows_the_image_of_median_margin_among_those_most_networks_get_right():
    correct = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [0, 0, 1, 0]], dtype=torch.bool)
    margins = torch.tensor([-9.0, 5.0, 3.0, 4.0])
    choose = plot_loss_surface.choose_image
    assert choose(correct, margins) == 3  # two votes for images 1, 2 and 3
    assert choose(correct[:1], margins) == 3  # images 0, 1 and 3
    assert choose(correct[2:], margins) == 2
    nobody = torch.zeros(2, 4, dtype=torch.bool)
    assert choose(nobody, margins) == 2  # the lower of 3 and 4


@pytest.mark.parametrize("networks", [1, 4])
def test_surface_leaves_out_networks_whose_directions_span_no_plane(
    networks, tmp_path, monkeypatch, capsys
):
    surfaces = itertools.chain([plot_loss_surface.surface] * (3 - networks), itertools.repeat(None))

    def surface(*arguments):
        if (found := next(surfaces)) is None:
            raise ValueError("parallel")
        return found(*arguments)

    monkeypatch.setattr(plot_loss_surface, "surface", surface)
    png, _ = draw("loss_surface", Experiment(tmp_path))
    assert png.exists()
    assert "is left out: parallel" in capsys.readouterr().out


def test_legend_of_a_narrow_figure_fits(tmp_path):
    figure, axes = plt.subplots(figsize=(2, 2))
    handles = [axes.plot([0], label=f"a regularizer with a long name, {i}")[0] for i in range(3)]
    plotting.save(figure, [tmp_path / "figure.png"], "Title", handles)
    legend = figure.legends[-1].get_window_extent()
    assert len(figure.legends) == 1
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.x1


def test_regularizers_look_the_same_whichever_of_them_a_figure_shows():
    whole = plotting.regularizer_styles(RUN)
    for names in (
        RUN[::-1],
        ["adversarial-l2", "none"],
        [name for name in RUN if name != "taylor"],
    ):
        styles = plotting.regularizer_styles(names)
        assert styles == {name: whole[name] for name in {"none", *names}}
        assert plotting.by_regularizer(names)["palette"] == {
            name: whole[name]["color"] for name in {"none", *names}
        }


def test_no_two_regularizers_look_alike_and_neither_do_variants_of_ones_own():
    styles = plotting.regularizer_styles([*RUN, "mine", "mine-too"])
    assert len(styles) == len(RUN) + 2
    for first, second in itertools.combinations(styles.values(), 2):
        assert (first["color"], first["marker"]) != (second["color"], second["marker"])
    colours = [styles[name]["color"] for name in RUN]
    assert len(set(colours)) == len(RUN)


def test_lines_are_named_and_coloured_by_their_penalty_strength():
    table = pd.DataFrame(
        [("none", 0.0), ("hessian", 1.0), ("hessian", 0.1), ("cure", 10.0), ("mine", 0.0)],
        columns=["regularizer", "lam"],
    )
    drawn = plotting.by_lam(table)
    assert table["λ"].tolist() == ["no penalty", "λ = 1", "λ = 0.1", "λ = 10", "λ = 0"]
    assert drawn["hue_order"] == ["no penalty", "λ = 0", "λ = 0.1", "λ = 1", "λ = 10"]
    assert drawn["palette"]["no penalty"] == "black"
    brightness = [sum(drawn["palette"][name]) for name in drawn["hue_order"][1:]]
    assert brightness == sorted(brightness, reverse=True)  # the stronger, the darker


def test_seaborn_draws_the_statistics_of_the_table_and_none_of_its_own():
    table = pd.DataFrame({"epsilon": [0.1, 0.2], "low": [0.2, np.nan], "mean": [0.5, 0.4]})
    table["high"] = [0.6, np.nan]
    values = plotting.summary(table).groupby("epsilon")["value"]
    assert values.median().tolist() == pytest.approx([50, 40])
    assert values.min().tolist() == pytest.approx([20, 40])
    assert values.max().tolist() == pytest.approx([60, 40])
