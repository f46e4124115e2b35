"""The pipeline, run whole, and what a change of one file makes Snakemake do."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pandas as pd
import pytest
import torch
import yaml
from helpers.repository import ENVIRONMENT, EVERYTHING, Repository, copy_tree
from safetensors.torch import load_file

from input_hessian.experiment.tables import selected_lams
from input_hessian.experiment.zoo import load_network, network_names

pytestmark = pytest.mark.slow

CELL = "results/everything/digits/hessian/lam~1/seed~0"
FIGURES = ["cost", "examples_digits_l2", "examples_digits_linf", "learning_curves_digits"]
FIGURES += ["masking", "pareto", "path", "recovery_digits", "robustness_digits"]
FIGURES += ["curvature_digits", "radius_digits", "certificate_digits"]
FIGURES += ["headline", "autoattack"]
CELLS, SELECTED, IMAGES = 20, 18, 100


@contextlib.contextmanager
def edited(path, change):
    """Change a file's text, and put the old file back, with its time."""
    before, status = path.read_bytes(), path.stat()
    path.write_text(change(path.read_text()))
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def read(demo, table):
    return pd.read_csv(demo.path / f"reports/everything/tables/{table}.csv", keep_default_na=False)


def test_every_figure_and_table_is_there(demo):
    figures = demo.path / "reports/everything/figures"
    assert sorted(p.name for p in figures.glob("[!.]*")) == sorted(
        f"{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png")
    )
    assert all(p.stat().st_size > 5000 for p in figures.glob("[!.]*"))
    assert "Figures:  reports/everything/figures\n" in demo.output
    assert "Notebook: reports/everything/notebook.html\n" in demo.output


def test_a_log_holds_plain_lines_alone(demo):
    assert " steps (100%) done\n" in demo.output
    assert "jobs |" not in demo.output
    assert not {"\r", "\x1b"} & set(demo.output)


def test_notebook_ran_to_its_end(demo):
    page = (demo.path / "reports/everything/notebook.html").read_text()
    assert "20 of 20 cells finished" in page
    assert "differences computed again, all as in the table" in page
    assert page.count('class="jp-RenderedImage ') == 2
    assert "Where to go on" in page
    assert 'data-mime-type="application/vnd.jupyter.stderr"' not in page  # warnings and errors
    assert not re.search(r'(src|href)="https?://(?!arxiv)', page)  # nothing to fetch
    assert len(page) < 1_500_000


def test_tables_hold_every_cell_attack_and_radius(demo):
    config = yaml.safe_load((demo.path / EVERYTHING).read_text())
    cells, table = read(demo, "cells"), read(demo, "robustness")
    assert len(cells) == CELLS
    assert set(cells["status"]) == {"finished"}
    epsilons = config["datasets"]["digits"]["epsilons"]
    linf, l2 = (1 + len(epsilons[norm]) for norm in ("linf", "l2"))
    # FGSM or DDN, PGD, two kinds of APGD and the worst case, for either norm from 0 up
    assert len(table) == CELLS * 5 * (linf + l2)
    assert set(table["n"]) == {config["evaluation"]["images"]}
    for _, rows in table.groupby(["regularizer", "lam", "seed", "attack", "norm"]):
        accuracies = rows.sort_values("epsilon")["robust_accuracy"]
        assert accuracies.is_monotonic_decreasing
        assert accuracies.iloc[0] > 0.9
    assert (table["low"] <= table["robust_accuracy"]).all()
    assert (table["robust_accuracy"] <= table["high"]).all()


def test_worst_case_is_no_better_than_any_attack(demo):
    keys = ["regularizer", "lam", "seed", "norm", "epsilon"]
    table = read(demo, "robustness")
    worst = table[table["attack"] == "worst"].set_index(keys)["robust"]
    for _, rows in table.groupby("attack"):
        robust = rows.set_index(keys)["robust"]
        assert (worst.loc[robust.index] <= robust).all()


def test_one_weight_per_regularizer_is_selected_and_attacked_harder(demo):
    selection = pd.read_csv(demo.path / "results/everything/selection.csv", keep_default_na=False)
    chosen = selection[selection["selected"]]
    assert sorted(chosen["regularizer"]) == sorted(selection["regularizer"].unique())
    weights = selection[selection["regularizer"] == "hessian"]
    assert set(weights["lam"]) == {0.1, 1}
    table = read(demo, "stronger_attacks")
    assert set(table["seed"]) == {0}
    assert set(table["n"]) == {50}
    for attack, norms in {"fab-t": ["linf"], "square": ["l2", "linf"], "apgd-t": ["l2"]}.items():
        rows = table[table["attack"] == attack]
        for _, of in rows.groupby(["regularizer", "lam"]):
            assert sorted(of["norm"]) == norms
        attacked = rows[["regularizer", "lam"]].drop_duplicates()
        assert set(attacked.itertuples(index=False, name=None)) == {
            (row.regularizer, row.lam) for row in chosen.itertuples()
        }
    # each gets what is left
    for _, rows in table.groupby(["regularizer", "norm"], sort=False):
        assert rows["attack"].iloc[0] == "all networks"
        assert rows["attack"].iloc[-1] == "transfer"
        assert rows["robust"].is_monotonic_decreasing
    text = (demo.path / "reports/everything/tables/autoattack.md").read_text()
    assert text.count("| hessian ") == 2  # one radius per norm


def test_masking_checks_flag_the_control_and_not_plain_training(demo):
    table = read(demo, "masking")
    flagged = table[table["flagged"]].groupby("regularizer")["check"].unique().map(set)
    assert {"zero_gradients", "pgd_gap", "huge_epsilon"} <= flagged["control"]
    assert "none" not in flagged
    assert table.groupby("regularizer")["check"].nunique().eq(8).all()


def test_penalties_do_what_they_are_for(demo):
    """On real images: a larger weight makes ||H|| smaller, and both penalties make robust."""
    curves, table = read(demo, "curves"), read(demo, "robustness")
    last = curves[(curves["epoch"] == curves["epoch"].max()) & (curves["regularizer"] == "hessian")]
    norms = (last["penalty"] / last["lam"]).groupby(last["lam"]).mean()
    assert norms[1] < 0.7 * norms[0.1]
    at = table[(table["attack"] == "worst") & (table["norm"] == "l2") & (table["epsilon"] == 0.5)]
    accuracy = at.groupby(["regularizer", "lam"])["robust_accuracy"].mean()
    for name in ("gradient", "hessian"):
        assert accuracy[name, 1] > accuracy["none", 0] + 0.08


def test_curvature_is_measured_at_every_attacked_image(demo):
    table = read(demo, "curvature")
    assert len(table) == CELLS
    assert set(table["n"]) == {IMAGES}
    assert (table["converged"] > 0.99).all()
    assert (table["largest_eigenvalue_q95"] <= table["hessian_norm_q95"] * 1.01).all()
    assert (table["compared"] > 0.75 * IMAGES).all()
    norms = table.groupby(["regularizer", "lam"])["hessian_norm_mean"].mean()
    assert norms["hessian", 1] < norms["hessian", 0.1] < norms["none", 0]


def test_no_attack_succeeds_within_a_certified_radius(demo):
    for cell in ("none/lam~0", "hessian/lam~1"):
        path = (
            demo.path / f"results/everything/certificate/digits/{cell}/seed~0/certificate.parquet"
        )
        images = pd.read_parquet(path)
        assert len(images) == IMAGES
        assert (images["certified_radius"] <= images["distance"] + 1e-4).all()
        assert ((images["certified_radius"] > 0) == (images["distance"] > 0)).all()
        assert images["certified_radius"].median() > 0.02


def test_records_say_where_they_come_from(demo):
    record = json.loads((demo.path / CELL / "training.json").read_text())
    assert record["settings"]["penalty"]["estimator"]["hvps"] == 4
    assert (record["regularizer"], record["lam"], record["seed"]) == ("hessian", 1, 0)
    assert record["train_seconds"] > 0
    assert record["peak_memory_mb"] > 50
    assert {"torch", "commit", "processor", "threads"} <= set(record)
    images = pd.read_parquet(demo.path / CELL / "images.parquet")
    assert images.groupby(["attack", "norm", "epsilon"])["index"].nunique().eq(IMAGES).all()
    summary = (demo.path / "reports/everything/tables/summary.md").read_text()
    assert "| hessian " in summary
    assert "2 seeds" in summary


def test_second_run_does_nothing(demo):
    assert "Nothing to be done" in demo.snakemake().stdout


def test_touching_files_does_nothing(demo):
    folders = ["workflow", "src", "config", "data", "results"]
    for folder in folders:
        for path in (demo.path / folder).rglob("*"):
            if path.is_file():
                path.touch()
    assert demo.planned() == {}


def test_editing_a_figure_redraws_it_and_nothing_else(demo):
    with edited(demo.path / "workflow/scripts/plot_cost.py", lambda s: s + "\n# edited\n"):
        assert demo.planned() == {"draw_cost": 1}
    with edited(
        demo.path / "src/input_hessian/experiment/style.mplstyle", lambda s: s + "\n# edited\n"
    ):
        assert demo.planned() == {
            "draw_accuracies": 1,
            "draw_certificate": 1,
            "draw_cost": 1,
            "draw_networks": 1,
            "draw_recovery": 1,
            "run_notebook": 1,  # draws in the same style
        }


def test_editing_the_core_retrains_every_cell(demo):
    with edited(
        demo.path / "src/input_hessian/penalties/__init__.py", lambda s: s + "\n# edited\n"
    ):
        planned = demo.planned()
    assert (planned["train"], planned["evaluate"]) == (CELLS, CELLS)
    assert "prepare_dataset" not in planned


def test_editing_a_penalty_retrains_its_own_cells(demo):
    with edited(demo.path / "src/input_hessian/penalties/cure.py", lambda s: s + "\n# edited\n"):
        planned = demo.planned()
    assert (planned["train"], planned["evaluate"]) == (2, 2)


def test_editing_an_estimator_retrains_what_uses_it(demo):
    with edited(demo.path / "src/input_hessian/estimators.py", lambda s: s + "\n# edited\n"):
        planned = demo.planned()
    hessian, taylor = 4, 2
    assert planned["train"] == hessian + taylor


@pytest.mark.parametrize("folder", ["penalties", "experiment/models", "experiment/datasets"])
def test_another_penalty_model_or_dataset_changes_nothing(demo, folder):
    new = demo.path / "src/input_hessian" / folder / "another.py"
    new.write_text('"""Something new."""\n')
    assert demo.planned() == {}
    new.unlink()


def test_editing_an_attack_trains_nothing(demo):
    with edited(
        demo.path / "src/input_hessian/experiment/attacks.py", lambda s: s + "\n# edited\n"
    ):
        planned = demo.planned()
    assert (planned["evaluate"], planned["run_stronger_attacks"]) == (CELLS, 1)
    assert "train" not in planned


def test_a_changed_section_trains_nothing_and_repeats_no_attack(demo):
    """The job of a cell computes its changed part and takes over the others, byte for byte."""
    target = demo.path / CELL / "masking.json"
    attacked, before = target.with_name("images.parquet"), target.read_bytes()
    expected, found = attacked.read_bytes(), attacked.stat().st_ino
    with edited(
        demo.path / EVERYTHING,
        lambda s: s.replace("  images: 50\n  queries", "  images: 49\n  queries"),
    ):
        planned = demo.planned()
        assert planned["evaluate"] == CELLS
        assert "train" not in planned
        demo.snakemake("--cores", "1", str(target.relative_to(demo.path)))
        assert target.read_bytes() != before
        assert (attacked.read_bytes(), attacked.stat().st_ino) == (expected, found)
    demo.snakemake("--cores", "1", str(target.relative_to(demo.path)))
    assert target.read_bytes() == before
    demo.snakemake("--cores", "all")  # the times of the repeated job are collected


def test_the_demo_is_small(demo):
    """At most 60 jobs, those that only collect included, so that it takes minutes."""
    text = demo.snakemake("-n", "--configfile", "config/demo.yaml").stdout
    assert int(re.search(r"^total +(\d+)", text, re.MULTILINE)[1]) <= 60


def test_a_new_lam_computes_only_its_own_cells(demo):
    with edited(
        demo.path / EVERYTHING,
        lambda s: s.replace("[0.1, 1]\n  grad", "[0.1, 0.5, 1]\n  grad"),
    ):
        planned = demo.planned()
    assert (planned["train"], planned["evaluate"]) == (2, 2)
    assert "measure_recovery" not in planned


def test_a_new_radius_attacks_every_cell_and_trains_none(demo):
    with edited(demo.path / EVERYTHING, lambda s: s.replace("0.5, 1]", "0.5, 1, 2]")):
        planned = demo.planned()
    assert planned["evaluate"] == CELLS
    assert not {"train", "measure_cost", "measure_recovery"} & set(planned)


def test_another_mirror_or_order_of_keys_changes_nothing(demo):
    with edited(demo.path / "config.yaml", lambda s: s.replace("../shared", "../other")):
        assert demo.planned() == {}
    swapped = "  batch_size: 64\n  epochs: 20\n"
    with edited(
        demo.path / EVERYTHING,
        lambda s: s.replace("  epochs: 20\n  batch_size: 64\n", swapped),
    ):
        assert swapped in (demo.path / EVERYTHING).read_text()
        assert demo.planned() == {}


def test_cell_is_repeated_bit_by_bit_after_kill_minus_nine(demo):
    """Kill the training of one cell in the middle, resume it, and compare the model's bytes."""
    model = demo.path / CELL / "model.safetensors"
    expected, checkpoint = model.read_bytes(), model.with_name("checkpoint.pt")
    assert not checkpoint.exists()
    model.unlink()
    log = demo.path / "logs/everything/train/digits/hessian/lam~1/seed~0.log"
    log.unlink()
    run = subprocess.Popen(
        demo.command(
            *("--cores", "1", str(model.relative_to(demo.path))),
            *("--configfile", EVERYTHING),
        ),
        cwd=demo.path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (log.exists() and "epoch 3/20" in log.read_text()):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)  # Snakemake and the training alike
    run.wait()
    assert not model.exists()
    assert checkpoint.exists()
    demo.snakemake("--unlock")  # only needed after kill -9 of Snakemake itself
    demo.snakemake("--cores", "1", str(model.relative_to(demo.path)))
    assert "resuming after epoch" in log.read_text()
    assert model.read_bytes() == expected
    # The network is the same, so no attack is repeated; only its new times are collected.
    planned = demo.planned()
    assert "tabulate" in planned
    assert not {"train", "evaluate", "run_stronger_attacks"} & set(planned)
    demo.snakemake("--cores", "all")
    assert not checkpoint.exists()  # its results are collected


def test_broken_data_is_one_clear_error(demo):
    data = demo.path / "data/digits.safetensors"
    settings = json.loads((demo.path / CELL / "training.json").read_text())["settings"]
    (demo.path / "broken.safetensors").write_bytes(data.read_bytes()[:1000])
    command = [sys.executable, "workflow/scripts/train.py", "--data", "broken.safetensors"]
    command += ["--device", "cpu", "--threads", "1"]
    for name in ("model", "training", "curve"):
        command += [f"--{name}", f"broken/{name}"]
    done = subprocess.run(
        command,
        cwd=demo.path,
        env=os.environ | {"PYTHONPATH": "src"},
        input=yaml.safe_dump(settings),
        capture_output=True,
        text=True,
    )
    (demo.path / "broken.safetensors").unlink()
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "broken.safetensors" in done.stderr
    assert not (demo.path / "broken").exists()


def test_a_diverged_cell_is_shown_and_costs_the_others_nothing(demo):
    others = ("gradient", "cure", "jacobian", "adversarial-linf", "adversarial-l2", "trades")
    option = demo.write_config(
        "diverging",
        seeds=[0],
        training={"epochs": 2},
        regularizers=dict.fromkeys(others) | {"taylor": {"lam": [1, 1e38]}},
    )
    demo.snakemake("--cores", "all", "--configfile", EVERYTHING, *option[1:])
    cells = pd.read_csv(demo.path / "reports/diverging/tables/cells.csv", keep_default_na=False)
    assert dict(zip(cells["lam"], cells["status"], strict=True))[1e38] == "diverged"
    assert set(cells.loc[cells["lam"] < 1e38, "status"]) == {"finished"}
    table = pd.read_csv(demo.path / "reports/diverging/tables/robustness.csv")
    assert set(table["lam"]) == {0, 0.1, 1}
    summary = (demo.path / "reports/diverging/tables/summary.md").read_text()
    assert "digits, taylor, lam 1e+38: 1 seed(s) diverged" in summary
    assert len(list((demo.path / "reports/diverging/figures").glob("*.png"))) == len(FIGURES)


def test_report_holds_every_figure(demo):
    demo.snakemake("--report", "report.html")
    html = (demo.path / "report.html").read_text()
    for name in FIGURES:
        assert f"{name}.png" in html
    assert "notebook.html" in html
    assert "Input-gradient and input-Hessian regularization" in html


def test_wrong_configuration_is_one_clear_error(demo):
    with edited(demo.path / EVERYTHING, lambda s: s.replace("seeds:", "seds:")):
        done = demo.snakemake("-n", check=False)
    assert done.returncode != 0
    assert "unknown key 'seds' (did you mean seeds?)" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_configuration_must_not_take_the_name_of_the_full_experiment(demo):
    with edited(demo.path / EVERYTHING, lambda s: s.replace("name: everything\n", "")):
        done = demo.snakemake("-n", check=False)
    assert done.returncode != 0
    assert "everything.yaml does not set it" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_mistyped_option_of_a_penalty_fails_before_anything_is_computed(demo):
    option = demo.write_config("typo", regularizers={"hessian": {"estimator": {"hvp": 3}}})
    done = demo.snakemake("-n", *option, check=False)
    assert done.returncode != 0
    assert "regularizers.hessian.estimator" in done.stdout
    assert "hvp" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_run_computes_only_what_it_asks_for(demo):
    """One attack, no optional section: what a newcomer's first own experiment looks like."""
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
    option = demo.write_config(
        "bare",
        seeds=[0],
        datasets={"mnist": None, "fashion_mnist": None},
        evaluation={"attacks": [{"attack": "fgsm", "norm": "linf"}]},
        **dict.fromkeys(sections),
    )
    assert demo.planned("--configfile", EVERYTHING, *option[1:]) == {
        "train": 10,
        "evaluate": 10,
        "tabulate": 1,
        "draw_accuracies": 1,
        "run_notebook": 1,
        "write_provenance": 1,
    }


def test_figures_tables_one_figure_and_one_cell_are_targets(demo):
    demo_file = ("--configfile", EVERYTHING)
    style = demo.path / "src/input_hessian/experiment/style.mplstyle"
    with edited(style, lambda s: s + "\n# edited\n"):
        assert len(demo.planned("figures", *demo_file)) == 5
        assert demo.planned("tables", *demo_file) == {}
        assert demo.planned("reports/everything/figures/pareto.png", *demo_file) == {
            "draw_accuracies": 1
        }
        assert demo.planned(f"{CELL}/evaluation.json", *demo_file) == {}


def test_the_graph_of_rules_can_be_drawn(demo):
    graph = demo.snakemake("--rulegraph").stdout
    assert "digraph" in graph
    assert all(f'"{rule}"' in graph for rule in ("train", "evaluate", "tabulate", "draw_cost"))


def test_plain_snakemake_plans_the_full_experiment(demo):
    planned = demo.planned("--configfile", "config.yaml")
    assert planned["train"] >= 2 * 3 * (1 + 4 + 4)
    assert planned["train"] == planned["evaluate"]


def test_an_archive_spares_training_and_attacks(demo, tmp_path):
    """In a clone that has the data and unpacks it: the same tables, without any network."""
    demo.snakemake("archive")
    clone = Repository(copy_tree(tmp_path))
    shutil.copytree(demo.path / "data", tmp_path / "data")
    with zipfile.ZipFile(demo.path / "reports/everything/cells.zip") as archive:
        archive.extractall(tmp_path)
    assert not list((tmp_path / "results").rglob("model.safetensors"))
    redraw = ("--workflow-profile", "profiles/redraw")
    planned = clone.planned(*redraw)
    assert {"tabulate", "draw_networks", "run_notebook"} <= planned.keys()
    assert not [rule for rule in planned if rule.startswith(("train", "eval", "attack", "cert"))]
    assert not [rule for rule in planned if rule.startswith("measure")]
    clone.snakemake("tables", *redraw)
    for table in (demo.path / "reports/everything/tables").glob("[!.]*"):
        assert (
            tmp_path / "reports/everything/tables" / table.name
        ).read_bytes() == table.read_bytes()


def test_a_deposit_alone_makes_tables_again(demo, tmp_path):
    """Unpacked, with the data: the same tables, and whoever has the network sees its card."""
    demo.snakemake("deposit")
    with zipfile.ZipFile(demo.path / "reports/everything/deposit.zip") as archive:
        archive.extractall(tmp_path)
    shutil.copytree(demo.path / "data", tmp_path / "data")
    unpacked = Repository(tmp_path)
    redraw = ("--workflow-profile", "profiles/redraw", "--configfile", "config.yaml")
    planned = unpacked.planned("--forceall", *redraw)
    assert {"tabulate", "draw_networks", "run_notebook"} <= planned.keys()
    assert not planned.keys() & {"train", "evaluate", "run_stronger_attacks", "certify"}
    unpacked.snakemake("tables", "--forceall", *redraw)
    for table in (demo.path / "reports/everything/tables").glob("[!.]*"):
        again = tmp_path / "reports/everything/tables" / table.name
        assert again.read_bytes() == table.read_bytes()
    networks = tmp_path / "reports/everything/networks"
    card = (networks / "README.md").read_text()
    assert all(f"| `{path.name}`" in card for path in networks.glob("*.safetensors"))


def test_the_selected_networks_load_by_name(demo):
    demo.snakemake("networks")
    folder = demo.path / "reports/everything/networks"
    released = {name for _, name in network_names(folder)}
    assert released == {"none", "gradient", "hessian", "adversarial-linf"}
    lam = selected_lams(demo.path / "results/everything/selection.csv", "digits")["hessian"]
    trained = load_file(
        demo.path / f"results/everything/digits/hessian/lam~{lam:g}/seed~0/model.safetensors"
    )
    state = load_network("digits", "hessian", folder).state_dict()
    assert state.keys() == trained.keys()
    assert all(torch.equal(state[name], trained[name]) for name in state)


def test_workflow_is_linted_and_formatted(demo):
    demo.snakemake("--lint")
    files = ["Snakefile", "workflow/Snakefile"]
    files += map(str, (demo.path / "workflow/rules").glob("*.smk"))
    checked = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", *files],
        cwd=demo.path,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


def test_of_each_family_the_first_network_trained_on_the_digits_is_given_away(demo):
    done = demo.snakemake("--summary", "networks", "--configfile", "config/demo.yaml")
    given = set(re.findall(r"networks/digits\.(\S+)\.safetensors", done.stdout))
    # adversarial-linf, the first of its family, has no lam for the digits.
    assert given == {"none", "hessian", "gradient", "adversarial-l2"}
