"""What the scripts that make tables and figures decide: which lam, which cost, which interval."""

import json

import collect
import collect_curvature
import collect_path
import numpy as np
import pandas as pd
import pytest
import summarize
import tabulate_attacks
import tabulate_certificates
from helpers import tables

from input_hessian.experiment.blocks import to_markdown
from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.statistics import contrast, relative_cost
from input_hessian.experiment.tables import read_table

CURVE = "epoch,loss,penalty,accuracy,validation_loss,validation_accuracy,seconds,steps\n"
CURVE += "1,0.5,0.1,0.8,0.6,0.75,2.5,10\n"


def test_the_last_column_is_the_worst_case_with_its_interval():
    trained = tables.cells()
    attacked = tables.groups(tables.robustness(trained))
    headline = {"digits": tables.HEADLINE}
    table = tabulate_attacks.tabulate(attacked, tables.selection(trained), headline)
    assert table.groupby(["norm", "attack"]).size().to_dict() == {
        (norm, attack): 3  # regularizers, each at its selected lam and one radius
        for norm in ("linf", "l2")
        for attack in ("fgsm", "pgd", "worst")
    }
    linf, l2 = sorted(to_markdown(tabulate_attacks.describe(table)).split("### ")[1:], reverse=True)
    assert "| FGSM " in linf
    assert "| worst case " in l2
    assert linf.count(" [") == 3  # of the worst case alone, which is the last column
    assert "| hessian       | 1     | 39.3   | 39.3  | 39.3 [29.3, 49.3] |" in linf


def test_robust_accuracy_lies_between_what_is_certified_and_what_the_attack_leaves():
    images = pd.DataFrame(
        {
            "index": [0, 1, 2, 3] * 2,
            "certified_radius": [0, 0.1, 0.2, 0.3, 0, 0.2, 0.4, 0.6],
            "distance": [0, 0.2, 0.3, np.inf, 0, 0.5, 0.6, 0.7],
            "dataset": "digits",
            "regularizer": "hessian",
            "lam": 1.0,
            "seed": [0] * 4 + [1] * 4,
        }
    )
    table = tabulate_certificates.tabulate(images, {"digits": [0.2, 0.5]})
    found = table.set_index("measure")[["mean", "low", "high", "seeds"]]
    assert {name: list(row) for name, row in found.T.items()} == {
        "clean": [0.75, 0.75, 0.75, 2],
        "median radius": pytest.approx([0.225, 0.15, 0.3, 2]),
        "certified 0.2": [0.625, 0.5, 0.75, 2],
        "attacked 0.2": [0.625, 0.5, 0.75, 2],  # at 0.2, an example at that distance has broken it
        "certified 0.5": [0.125, 0, 0.25, 2],
        "attacked 0.5": [0.375, 0.25, 0.5, 2],
    }
    text = to_markdown(tabulate_certificates.describe(table, {"digits": 4}))
    assert "on 4 test images, mean of 2 seeds, in brackets" in text
    assert "| hessian       | 1     | 75.0 [75.0, 75.0] | 0.225 [0.150, 0.300] | 62.5 [50.0" in text
    nothing = tabulate_certificates.tabulate(images[:0], {"digits": [0.2]})
    assert to_markdown(tabulate_certificates.describe(nothing, {})).startswith("Every certifiable")


def test_nothing_finished_leaves_empty_tables():
    trained = tables.cells(status="diverged")
    attacked = tables.groups(tables.robustness(trained))
    headline = {"digits": tables.HEADLINE}
    table = tabulate_attacks.tabulate(attacked, tables.selection(trained), headline)
    assert table.empty
    assert to_markdown(tabulate_attacks.describe(table)) == "Every selected cell diverged.\n"
    summary = summarize.summarize(trained, attacked, headline)
    assert summary.empty
    text = to_markdown(summarize.describe(summary, trained, attacked))
    assert "digits, hessian, lam 1: 2 seed(s) diverged." in text


@pytest.fixture
def cell_files(tmp_path, monkeypatch):
    """A grid of two cells, one of which diverged, and a function that writes a file of each."""
    monkeypatch.chdir(tmp_path)
    grid = {"results": "results", "datasets": {"digits": {"none": ["0"], "hessian": ["1"]}}}

    def write(name, finished, diverged):
        for folder, content in zip(
            cell_folders(grid | {"seeds": [0]}), (finished, diverged), strict=True
        ):
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pd.DataFrame):
                content.to_parquet(folder / name)
            else:
                (folder / name).write_text(content)

    return {"grid": grid | {"seeds": [0]}}, write


PLAIN = {"dataset": "digits", "regularizer": "none", "lam": 0.0, "seed": 0}
DIVERGED = PLAIN | {"regularizer": "hessian", "lam": 1.0}
STATUSES = [(PLAIN, "finished"), (DIVERGED, "diverged")]


def test_cells_are_collected_also_without_a_selection_and_after_divergence(cell_files, tmp_path):
    settings, write = cell_files
    trained = {"settings": {}, "train_seconds": 1.0}
    measured = {"test_accuracy": 0.75, "test_images": 8, "evaluated_with": {}}
    write("training.json", *(json.dumps(c | trained | {"status": s}) for c, s in STATUSES))
    write("evaluation.json", *(json.dumps(c | measured) for c, _ in STATUSES))
    write("curve.csv", CURVE, CURVE.splitlines()[0])
    images = pd.DataFrame({"index": [0, 1, 0, 1], "attack": ["fgsm", "fgsm", "pgd", "pgd"]})
    images = images.assign(norm="l2", epsilon=0.5, robust=[True, False, True, True], **PLAIN)
    write("images.parquet", images, images.head(0))
    checkpoint = tmp_path / "results/digits/none/lam~0/seed~0/checkpoint.pt"
    checkpoint.write_bytes(b"")
    files = ("cells", "robustness", "groups", "curves")
    names = {name: tmp_path / f"{name}.csv" for name in files}
    collect.main(settings=settings, **names)
    assert not checkpoint.exists()
    cells = read_table(names["cells"])
    assert cells["status"].tolist() == ["finished", "diverged"]
    assert "settings" not in cells
    assert read_table(names["curves"])["regularizer"].tolist() == ["none"]
    robustness = read_table(names["robustness"])
    assert dict(zip(robustness["attack"], robustness["robust_accuracy"], strict=True)) == {
        "fgsm": 0.5,
        "pgd": 1,
        "worst": 0.5,
    }


def test_seeds_of_a_lam_have_one_interval_over_images_and_seeds(cell_files, tmp_path):
    """Of three seeds one diverged; the two others disagree on the second of four images."""
    settings, _ = cell_files
    settings["grid"] |= {"seeds": [0, 1, 2], "datasets": {"digits": {"none": ["0"]}}}
    verdicts = {0: [True, False, True, False], 1: [True, True, True, False], 2: []}
    for seed, folder in enumerate(cell_folders(settings["grid"])):
        cell, robust = PLAIN | {"seed": seed}, verdicts[seed]
        status = "finished" if robust else "diverged"
        folder.mkdir(parents=True)
        (folder / "training.json").write_text(json.dumps(cell | {"settings": {}, "status": status}))
        measured = {"test_accuracy": 0.75, "test_images": 8, "evaluated_with": {}}
        (folder / "evaluation.json").write_text(json.dumps(cell | measured))
        (folder / "curve.csv").write_text(CURVE)
        images = pd.DataFrame({"index": [4, 3, 2, 1][: len(robust)], "robust": robust[::-1]})
        images = images.assign(attack="fgsm", norm="l2", epsilon=0.5, **cell)
        images.to_parquet(folder / "images.parquet")
    files = ("cells", "robustness", "groups", "curves")
    names = {name: tmp_path / f"{name}.csv" for name in files}
    collect.main(settings=settings, **names)
    groups = read_table(names["groups"])
    found = contrast(np.array([verdicts[0], verdicts[1]]))
    assert groups["attack"].tolist() == ["fgsm", "worst"]
    for row in groups.itertuples():
        assert (row.dataset, row.regularizer, row.lam) == ("digits", "none", 0)
        assert (row.norm, row.epsilon, row.images, row.seeds) == ("l2", 0.5, 4, 2)
        assert (row.mean, row.low, row.high) == pytest.approx((0.625, found.low, found.high))
    assert len(read_table(names["robustness"])) == 2 * 2  # a row per seed remains there


def test_nothing_finished_is_collected_as_tables_without_rows(cell_files, tmp_path):
    settings, write = cell_files
    status = {"settings": {}, "status": "diverged"}
    write("training.json", *(json.dumps(cell | status) for cell in (PLAIN, DIVERGED)))
    measured = {"test_accuracy": 0.1, "test_images": 8, "evaluated_with": {}}
    write("evaluation.json", *(json.dumps(cell | measured) for cell in (PLAIN, DIVERGED)))
    write("curve.csv", *[CURVE.splitlines()[0]] * 2)
    write("images.parquet", *[pd.DataFrame(columns=["index"])] * 2)
    files = ("cells", "robustness", "groups", "curves")
    names = {name: tmp_path / f"{name}.csv" for name in files}
    collect.main(settings=settings, **names)
    groups = read_table(names["groups"])
    assert groups.empty
    assert list(groups) == [*collect.GROUP, *collect.GROUPED]
    assert read_table(names["robustness"]).empty
    assert len(read_table(names["cells"])) == 2


def path_images(**columns):
    """Rows of measure_path for four images of which the attack found all at distance 2."""
    table = {"distance": [2.0] * 4, "bound": [1.0, 2.01, 1.0, 2.03], "margin_bound": [0.5] * 4}
    table |= {"rise": [1.0, 2, 3, 4], "by_gradient": [0.5] * 4, "by_curvature": [1.0, 1, 3, -1]}
    return pd.DataFrame(table | columns).assign(**PLAIN)


def test_bounds_along_a_path_are_described_by_their_tightness_and_the_rise_by_its_parts():
    # 2.01 and 2.02 of 2 lie within the tolerance of 1%; the medians are of 0.5, 0.5, 1.005, 1.015
    expected = {"n": 4, "bound_holds": 0.75, "tightness": (0.5 + 1.005) / 2}
    expected |= {"margin_bound_holds": 1, "margin_tightness": 0.25}
    expected |= {"rise": 2.5, "by_gradient": 0.5, "by_curvature": 1, "remainder": 1}
    assert collect_path.describe(path_images()) == pytest.approx(expected)
    within = collect_path.describe(path_images(bound=[2.02, 1.0, 0.0, 2.0]))
    assert within["bound_holds"] == 1
    # a bound that nothing limits, as in a network without curvature, is not kept by anything found
    assert collect_path.describe(path_images(bound=np.inf))["bound_holds"] == 0


def test_paths_are_collected_of_cells_with_images_that_were_broken(cell_files, tmp_path):
    settings, write = cell_files
    images = path_images()
    write("path.parquet", images, images.head(0))
    collect_path.main(settings=settings, csv=tmp_path / "path.csv")
    table = read_table(tmp_path / "path.csv")
    assert list(table) == collect_path.COLUMNS
    assert table["regularizer"].tolist() == ["none"]
    assert table["remainder"].tolist() == pytest.approx([1])
    write("path.parquet", images.head(0), images.head(0))
    collect_path.main(settings=settings, csv=tmp_path / "path.csv")
    assert list(read_table(tmp_path / "path.csv")) == collect_path.COLUMNS
    assert read_table(tmp_path / "path.csv").empty


def test_curvature_is_compared_with_an_attack_where_that_ran(cell_files, tmp_path):
    settings, write = cell_files
    images, found = tables.image_curvature(PLAIN), tables.perturbations(PLAIN)
    write("curvature.parquet", images, images.head(0))
    table = {}
    for case, perturbations in {"ddn": found, "no ddn": found.head(0)}.items():
        write("perturbations.parquet", perturbations, found.head(0))
        collect_curvature.main(settings=settings, csv=tmp_path / "curvature.csv")
        table[case] = read_table(tmp_path / "curvature.csv")
    assert table["ddn"]["regularizer"].tolist() == ["none"]
    assert table["ddn"]["compared"].tolist() == [11]  # one of twelve is misclassified
    assert "compared" not in table["no ddn"]
    assert table["no ddn"]["hessian_norm_median"].equals(table["ddn"]["hessian_norm_median"])
    write("curvature.parquet", images.head(0), images.head(0))
    collect_curvature.main(settings=settings, csv=tmp_path / "curvature.csv")
    assert read_table(tmp_path / "curvature.csv").empty


def summary_tables(values):
    """Tables of collect for clean accuracies per lam and seed; under attack 0.4, at linf 0.1."""
    cells, groups = [], []
    for lam, accuracies in values.items():
        group = {"dataset": "digits", "regularizer": "hessian", "lam": lam}
        for seed, accuracy in enumerate(accuracies):
            status = "diverged" if accuracy is None else "finished"
            about = {"seed": seed, "status": status, "test_images": 400}
            cells.append(group | about | {"test_accuracy": accuracy})
        seeds = len(accuracies) - accuracies.count(None)
        bounds = {"mean": 0.4, "low": 0.35, "high": 0.47, "images": 50, "seeds": seeds}
        for attack, epsilon in [("worst", 0.1), ("worst", 0.2), ("pgd", 0.1)]:
            at = {"attack": attack, "norm": "linf", "epsilon": epsilon}
            if seeds:
                groups.append(group | at | bounds)
    return pd.DataFrame(cells), pd.DataFrame(groups)


HEADLINE = {"digits": {"linf": [0.1], "l2": [0.5]}}


def test_summary_has_seeds_of_the_clean_and_intervals_of_the_worst_case():
    tables = summary_tables({1.0: [0.5, 0.53, 0.51], 3.0: [0.4, None, None], 9.0: [None] * 3})
    summary = summarize.summarize(*tables, HEADLINE)
    assert summary.groupby("measure")["lam"].apply(list).to_dict() == {
        "clean": [1, 3],
        "l∞ 0.1": [1, 3],
    }
    numbers = summary.set_index(["lam", "measure"])[["mean", "low", "high", "seeds"]]
    assert numbers.loc[1.0, "clean"].tolist() == pytest.approx([1.54 / 3, 0.5, 0.53, 3])
    assert numbers.loc[3.0, "l∞ 0.1"].tolist() == [0.4, 0.35, 0.47, 1]
    text = to_markdown(summarize.describe(summary, *tables))
    assert "mean of 3 seeds. Clean: all 400 test images, in brackets the lowest and the" in text
    assert "random subset of 50" in text
    assert "interval over images and seeds" in text
    assert "51.3 [50.0, 53.0] | 40.0 [35.0, 47.0]" in text
    assert "40.0 (1 of them)" in text  # one seed has no range
    assert "40.0 [35.0, 47.0] (1 of them)" in text
    assert "digits, hessian, lam 3: 2 seed(s) diverged." in text
    assert "digits, hessian, lam 9: 3 seed(s) diverged." in text


def test_summary_of_one_seed_states_the_interval_of_its_images():
    tables = summary_tables({1.0: [0.5]})
    text = to_markdown(summarize.describe(summarize.summarize(*tables, HEADLINE), *tables))
    assert "mean of 1 seed. Clean: all 400 test images. Under" in text
    assert "interval over images.\n" in text
    assert "| 50.0    | 40.0 [35.0, 47.0] |" in text
    assert "of them" not in text


def test_cost_is_the_ratio_within_a_round():
    rows = [  # the machine is ten times slower in the second round
        ("digits", "none", 0, 1.0),
        ("digits", "hessian", 0, 4.0),
        ("digits", "none", 1, 10.0),
        ("digits", "hessian", 1, 40.0),
        ("digits", "none", 2, 1.0),
        ("digits", "hessian", 2, 5.0),
    ]
    columns = ["dataset", "regularizer", "round", "milliseconds"]
    cost = relative_cost(pd.DataFrame(rows, columns=columns))
    assert cost.loc[("digits", "hessian")].tolist() == [4, 4, 4.5]
    assert cost.loc[("digits", "none")].tolist() == [1, 1, 1]
