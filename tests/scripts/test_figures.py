"""Every figure, drawn from small tables; and what the figures show of them."""

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plot_autoattack
import pytest
import torch
from helpers import tables
from helpers.repository import ROOT
from PIL import Image
from safetensors.torch import save_file

from input_hessian.experiment import datasets, plotting

PUBLISHED = ROOT / "workflow/resources/published.csv"
FIGURES = sorted(
    path.stem.removeprefix("plot_") for path in ROOT.glob("workflow/scripts/plot_*.py")
)
RUN = ["none", *plotting.REGULARIZERS]
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
    "no clean error": {"grid": SMALL, "accuracy": 1.0},
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
        accuracy=None,
    ):
        self.folder, self.names, self.status, self.missing = folder, names, status, missing
        self.distance, self.shape, self.scale = distance, shape, scale
        self.predicted, self.diverged = predicted, diverged
        cells = tables.cells(grid, seeds, names, status)
        cells.loc[cells["regularizer"].isin(diverged), "status"] = "diverged"
        if accuracy is not None:
            cells["test_accuracy"] = accuracy
        groups = tables.groups(tables.robustness(cells, epsilons=epsilons, share=share))
        if missing:
            cells["test_low"] = cells["test_high"] = np.nan
        selection = tables.selection(cells)
        finished = status == "finished"
        self.cells = self.table("cells", cells)
        self.groups = self.table("groups", groups)
        self.matched = self.table("matched", tables.matched(groups))
        self.path = self.table("path", tables.path(cells, sign=-1 if missing else 1))
        self.curves = self.table("curves", tables.curves(cells) if finished else cells[:0])
        self.autoattack = self.table("autoattack", tables.autoattack(groups, selection))
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
        cells, curvature = {"cells": self.cells}, {"curvature": self.curvature}
        groups = {"groups": self.groups}
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
                allowed = {"settings": {"max_clean_loss": dict.fromkeys(self.names, 2.0)}}
                return allowed | {"matched": self.matched, "reference": "hessian"}
            case "learning_curves":
                return {"curves": self.curves} | dataset
            case "masking":
                return {"masking": self.masking}
            case "pareto":
                return cells | groups | settings
            case "path":
                return {"path": self.path}
            case "radius":
                measured = self.parquet("curvature", tables.image_curvature)
                files = {"curvature": measured, "perturbations": self.perturbations()}
                return files | {"table": self.curvature} | dataset
            case "recovery":
                return recovery | dataset
            case "robustness":
                return groups | {"published": PUBLISHED} | dataset
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


def test_colour_images_are_drawn_in_colour(tmp_path):
    png, _ = draw("examples", Experiment(tmp_path, names=("mine",), shape=(3, 6, 5)))
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


def test_a_pdf_carries_no_title(tmp_path):
    written = {}
    for title in ("", "A title of\ntwo lines"):
        figure, axes = plt.subplots(figsize=(6, 2))
        axes.set_title("a panel")
        paths = [tmp_path / f"figure.{suffix}" for suffix in ("pdf", "png")]
        plotting.save(figure, paths, title)
        written[title] = [path.read_bytes() for path in paths]
    (plain, untitled), (print_, titled) = written.values()
    assert print_ == plain
    assert titled != untitled


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


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Return the figure that a script draws, its title and its legend, instead of files."""

    def draw_figure(figure: str, **tables: pd.DataFrame):
        experiment = Experiment(tmp_path)
        for name, table in tables.items():
            experiment.table(name, table)
        saved = []

        def save(figure, paths, title="", handles=(), **_):
            figure.canvas.draw()
            saved.append((figure, title, [handle.get_label() for handle in handles]))

        with monkeypatch.context() as patched:
            patched.setattr(plotting, "save", save)
            draw(figure, experiment)
        return saved[0]

    return draw_figure


def line_of(axes, colour):
    """Return the points of the one line of a colour, NaN left out."""
    (line,) = [line for line in axes.lines if line.get_color() == colour and len(line.get_xdata())]
    return np.column_stack([line.get_xdata(), line.get_ydata()]).tolist()


def band_of(axes, colour):
    """Return the lower and the upper edge of the band of a colour, by the radius."""
    colour = matplotlib.colors.to_rgb(colour)
    (band,) = [b for b in axes.collections if tuple(b.get_facecolor()[0][:3]) == colour]
    edges = {}
    for x, y in band.get_paths()[0].vertices:
        edges.setdefault(x, []).append(y)
    return {x: (min(y), max(y)) for x, y in edges.items()}


def matched_table():
    """Two data sets, of which the second lacks the gradient penalty."""
    columns = ["dataset", "norm", "regularizer", "epsilon", "robust", "low", "high"]
    rows = [
        ("mnist", "linf", "hessian", 0.2, 0.5, 0.4, 0.55),
        ("mnist", "linf", "hessian", 0.1, 0.7, 0.6, 0.75),
        ("mnist", "linf", "gradient", 0.1, 0.3, 0.2, 0.45),
        ("mnist", "l2", "hessian", 2.0, 0.25, 0.2, 0.35),
        ("digits", "linf", "hessian", 0.3, 0.9, 0.85, 0.95),
    ]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(attacked_error=0.02, images=40, seeds=3)


def test_headline_draws_what_is_left_at_equal_clean_accuracy(drawn, monkeypatch):
    allowed = {"max_clean_loss": {"mnist": 0.5, "digits": 5.0}}
    arguments = {"reference": "hessian", "settings": allowed}
    monkeypatch.setattr(
        Experiment, "arguments", lambda self, _: arguments | {"matched": self.matched}
    )
    figure, title, labels = drawn("headline", matched=matched_table())
    first, second, third, _ = figure.axes
    assert first.get_title() == "MNIST\n(at most 0.5 points of clean accuracy lost)"
    assert second.get_title().startswith("Digits (8x8)\n(at most 5 points")
    styles = plotting.regularizer_styles(["hessian", "gradient"])
    hessian, gradient = (styles[name]["color"] for name in ("hessian", "gradient"))
    # the clean accuracy of the attacked images at radius 0, and in the order of the radii
    expected = [[0, 98], [0.1, 70], [0.2, 50]]
    assert line_of(first, hessian) == pytest.approx(np.array(expected))
    assert line_of(first, gradient) == pytest.approx(np.array([[0, 98], [0.1, 30]]))
    assert line_of(third, hessian) == pytest.approx(np.array([[0, 98], [2, 25]]))
    assert not any(line.get_color() == gradient and len(line.get_xdata()) for line in second.lines)
    band = band_of(first, hessian)
    assert band[0.1] == pytest.approx((60, 75))
    assert band[0.2] == pytest.approx((40, 55))
    widths = {line.get_color(): line.get_linewidth() for line in first.lines}
    assert widths[hessian] > widths[gradient]  # the reference
    assert labels == ["hessian", "gradient"]
    assert "n = 40 test images, 3 seeds; band: 95% interval over images and seeds" in title


def test_headline_of_one_seed_names_the_images_alone(drawn):
    table = matched_table().assign(dataset="digits", seeds=1)
    _, title, _ = drawn("headline", matched=table.drop_duplicates(["norm", "regularizer"]))
    assert "1 seed; band: 95% interval over images" in title
    assert "and seeds" not in title


def test_pareto_draws_curves_from_plain_training_on(drawn):
    cells = tables.cells({"none": [0.0], "hessian": [0.1, 1.0]})
    cells["test_accuracy"] = [0.98, 0.96, 0.95, 0.91, 0.9, 0.8]
    groups = tables.groups(tables.robustness(cells))
    at = (groups["attack"] == "worst") & (groups["norm"] == "linf") & (groups["epsilon"] == 0.1)
    assert at.sum() == 3
    groups.loc[at, ["mean", "low", "high"]] = [[0.1, 0.05, 0.12], [0.4, 0.3, 0.6], [0.7, 0.6, 0.75]]
    figure, title, labels = drawn("pareto", cells=cells, groups=groups)
    axes = figure.axes[0]
    assert axes.get_title() == r"Digits (8x8), $\ell_\infty$ ε = 0.1"
    assert axes.get_xscale() == "log"
    assert labels == ["none", "hessian"]
    curve, bars, tops, dotted, largest = hessian_parts(axes)
    # errors of 5 and 9, 10 and 20 percent
    assert curve == pytest.approx(np.array([[7, 40], [15, 70]]))
    assert bars == pytest.approx(np.array([[5, 9], [10, 20]]))  # the lowest and the highest seed
    assert tops == pytest.approx(np.array([[30, 60], [60, 75]]))
    assert dotted == pytest.approx(np.array([[3, 10], [7, 40]]))
    assert largest == pytest.approx(np.array([[15, 70]]))
    assert "2 seeds" in title
    assert "n = 40 test images" in title


def test_pareto_names_networks_that_learnt_nothing_instead_of_drawing_them(drawn):
    cells = tables.cells({"none": [0.0], "hessian": [0.1, 1.0]})
    useless = cells["lam"] == 1.0
    cells.loc[useless, ["test_accuracy", "test_low"]] = [0.12, 0.09]
    groups = tables.groups(tables.robustness(cells))
    figure, title, labels = drawn("pareto", cells=cells, groups=groups)
    assert "not shown: Digits (8x8) hessian 1" in " ".join(title.split())
    assert labels == ["none", "hessian"]
    curve, *_ = hessian_parts(figure.axes[0])
    assert len(curve) == 1
    cells["test_low"] = 0.09  # nor did plain training: there, it stays
    _, title, labels = drawn("pareto", cells=cells, groups=groups)
    assert labels == ["none"]
    assert "hessian 0.1, Digits (8x8) hessian 1" in " ".join(title.split())


def hessian_parts(axes):
    """Return curve, horizontal and vertical bars, dotted start and last marker of the penalty."""
    colour = plotting.regularizer_styles(["hessian"])["hessian"]["color"]
    container = next(c for c in axes.containers if c[0].get_color() == colour)
    horizontal, vertical = (c.get_segments() for c in container[2])
    lines = [line for line in axes.lines if line.get_color() == colour]
    points = [np.column_stack([line.get_xdata(), line.get_ydata()]) for line in lines]
    dotted = points[[line.get_linestyle() for line in lines].index(":")]
    curve = np.column_stack(container[0].get_data())
    bars, tops = (
        np.array([segment[:, i] for segment in segments])
        for i, segments in enumerate((horizontal, vertical))
    )
    (largest,) = [p for p, line in zip(points, lines, strict=True) if line.get_markersize() == 7]
    return curve, bars, tops, dotted, largest


def test_path_stacks_the_parts_of_either_sign_away_from_zero(drawn):
    table = pd.DataFrame(
        [
            ("none", 0.0, 0, 0.2, 0.5, 0.1),
            ("none", 0.0, 1, 0.4, 0.7, 0.1),
            ("hessian", 3.0, 0, 0.3, -0.2, 0.4),
            ("cure", 1.0, 0, 0.6, -0.3, -0.2),
        ],
        columns=["regularizer", "lam", "seed", "by_gradient", "by_curvature", "remainder"],
    ).assign(dataset="mnist", n=40)
    table["rise"] = table[["by_gradient", "by_curvature", "remainder"]].sum(axis=1)
    figure, title, labels = drawn("path", path=table)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "none",
        "hessian, λ = 3",
        "cure, λ = 1",
    ]
    assert labels == [
        *("rise of the loss", "gradient at the image", "curvature at the image", "remainder"),
    ]
    bars = {
        container.get_label(): [
            sorted((bar.get_x(), bar.get_x() + bar.get_width())) for bar in container
        ]
        for container in axes.containers
    }
    ends = {
        "gradient at the image": [[0, 0.3], [0, 0.3], [0, 0.6]],
        "curvature at the image": [[0.3, 0.9], [-0.2, 0], [-0.3, 0]],
        "remainder": [[0.9, 1.0], [0.3, 0.7], [-0.5, -0.3]],
    }
    assert bars.keys() == ends.keys()
    for name, expected in ends.items():
        assert np.array(bars[name]) == pytest.approx(np.array(expected))
    (marks,) = [line for line in axes.lines if line.get_label() == "rise of the loss"]
    assert marks.get_xdata() == pytest.approx([1.0, 0.5, 0.1])
    assert marks.get_ydata().tolist() == [0, 1, 2]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first above
    assert "mean over up to 40 test images a network, 2 seeds" in title


def test_attacks_are_shown_by_what_they_overlook():
    columns = ["dataset", "norm", "epsilon", "regularizer", "lam", "attack", "mean"]
    rows = [
        ("mnist", "linf", 0.2, "none", 0.0, "fgsm", 0.5),
        ("mnist", "linf", 0.2, "none", 0.0, "apgd-t", 0.22),
        ("mnist", "linf", 0.2, "none", 0.0, "worst", 0.2),
        ("mnist", "l2", 2.0, "none", 0.0, "ddn", 0.4),
        ("mnist", "l2", 2.0, "none", 0.0, "worst", 0.4),
    ]
    wide = plot_autoattack.above_worst_case(pd.DataFrame(rows, columns=columns))
    assert wide["norm"].tolist() == ["linf", "l2"]  # as in the table
    assert wide["worst"].tolist() == pytest.approx([20, 40])
    assert wide["fgsm"].tolist() == pytest.approx([30, np.nan], nan_ok=True)
    assert wide["apgd-t"].tolist() == pytest.approx([2, np.nan], nan_ok=True)
    assert wide["ddn"].tolist() == pytest.approx([np.nan, 0], nan_ok=True)
    assert wide["square"].isna().all()


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
    assert table["λ"].tolist() == ["no penalty", "λ = 1", "λ = 0.1", "λ = 10", "trained elsewhere"]
    assert drawn["hue_order"] == ["no penalty", "trained elsewhere", "λ = 0.1", "λ = 1", "λ = 10"]
    assert drawn["palette"]["no penalty"] == "black"
    brightness = [sum(drawn["palette"][name]) for name in drawn["hue_order"][1:]]
    assert brightness == sorted(brightness, reverse=True)  # the stronger, the darker
    assert plotting.with_lam("mine", 0.0) == "mine"  # trained elsewhere


def test_seaborn_draws_the_statistics_of_the_table_and_none_of_its_own():
    table = pd.DataFrame({"epsilon": [0.1, 0.2], "low": [0.2, np.nan], "mean": [0.5, 0.4]})
    table["high"] = [0.6, np.nan]
    values = plotting.summary(table).groupby("epsilon")["value"]
    assert values.median().tolist() == pytest.approx([50, 40])
    assert values.min().tolist() == pytest.approx([20, 40])
    assert values.max().tolist() == pytest.approx([60, 40])
