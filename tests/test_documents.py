"""What README and documentation say is true: links, numbers, code, configurations."""

import re
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from helpers.repository import ROOT
from safetensors.torch import save_file
from snakemake.utils import update_config
from torch import nn

from input_hessian.experiment.config import read_config
from input_hessian.experiment.table_text import NORMS, dataset_title
from input_hessian.experiment.tables import read_table

PAGES = [ROOT / "README.md", ROOT / "benchmarks/README.md", ROOT / "config/README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


def blocks(language):
    """Blocks of code of one language: the page and the text of each."""
    found = []
    for page in PAGES:
        for _, kind, text in FENCE.findall(page.read_text()):
            if kind == language:
                found.append(pytest.param(page, text, id=f"{page.stem}-{len(found)}"))
    return found


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_page_stands_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in navigation


@pytest.mark.parametrize("page", PAGES[:3], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Of pages outside the site; there, `mkdocs build --strict` looks at them."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    assert targets
    for target in targets:
        if not target.startswith(("https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def difference(contrast):
    """A difference with its interval, in points."""
    values = contrast["difference"], contrast["low"], contrast["high"]
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in values))


def test_numbers_of_the_finding_are_those_of_the_released_tables():
    tables = ROOT / "reports/paper/tables"
    tested, others = read_table(tables / "comparison.csv"), read_table(tables / "sensitivity.csv")
    readme = (ROOT / "README.md").read_text()
    finding = readme[readme.index("## What was found") : readme.index("## Two commands")]
    rows = [line for line in finding.splitlines() if re.match(r"\|.*\d\.\d \[", line)]
    tested = tested[tested["family"].notna()]
    assert len(rows) == len(tested) == 8
    for row, contrast in zip(rows, tested.to_dict("records"), strict=True):
        attack, *numbers = (cell.strip() for cell in row.strip("|").split("|"))
        dataset, norm, rival = re.fullmatch(r"(\S+), (\S+): (\S+)", attack).groups()
        assert dataset == dataset_title(contrast["dataset"])
        assert norm == NORMS[contrast["norm"]]
        assert rival == contrast["regularizer"]
        same = ["family", "dataset", "norm"]
        elsewhere = others[(others[same] == pd.Series(contrast)[same]).all(axis=1)]
        half, twice = elsewhere.sort_values("clean_loss").to_dict("records")
        clean = f"{100 * contrast['clean_difference']:+.1f}"
        expected = [clean, difference(contrast), contrast["conclusion"]]
        assert numbers == [*expected, difference(half), difference(twice)]


def test_numbers_of_certificate_and_stronger_attacks_are_those_of_the_released_tables():
    tables = ROOT / "reports/paper/tables"
    readme = " ".join((ROOT / "README.md").read_text().split())
    certified = read_table(tables / "certificate.csv")
    certified = certified[certified["lam"].isin([0, 1])]
    mean = certified.set_index(["dataset", "regularizer", "measure"])["mean"]

    def said(dataset, regularizer):
        radius, clean = (mean[dataset, regularizer, name] for name in ("median radius", "clean"))
        return f"{radius:.2f}", f"{100 * clean:.1f}%"

    numbers = [*said("mnist", "hessian"), *said("fashion_mnist", "hessian")]
    numbers += [*said("mnist", "gradient"), *said("fashion_mnist", "gradient")]
    numbers += [*said("mnist", "none"), *said("fashion_mnist", "none")]
    assert (
        "to {} on MNIST (clean {}) and {} on Fashion-MNIST ({}) with the Hessian penalty, to {} ({}) "
        "and {} ({}) with the gradient penalty, {} ({}) and {} ({}) without one".format(*numbers)
        in readme
    )
    stronger = read_table(tables / "stronger_attacks.csv")
    cells = stronger.groupby(["dataset", "regularizer", "norm"])["robust_accuracy"]
    most = 100 * (cells.first() - cells.last()).max()
    assert (
        f"({stronger['n'].max()} images), restarts of APGD broke up to {most:.1f} points" in readme
    )
    assert not stronger.loc[stronger["attack"].isin(["fab-t", "square", "transfer"]), "found"].any()


def test_numbers_of_the_follow_up_in_the_readme_are_those_of_its_tables():
    tables = ROOT / "reports/follow-up/tables"
    readme = (ROOT / "README.md").read_text()
    tested, others = read_table(tables / "comparison.csv"), read_table(tables / "sensitivity.csv")
    cure = tested[(tested["family"] == "cure") & (tested["norm"] == "linf")]
    ahead = (-100 * cure.set_index("dataset")["difference"]).map("{:.1f}".format)
    assert f"by {ahead['mnist']} points on MNIST and {ahead['fashion_mnist']} on Fash" in readme
    half = others[(others["family"] == "gradient penalty") & (others["clean_loss"] == 0.25)]
    half = half.set_index("norm").apply(difference, axis=1).str.removeprefix("+")
    assert f"there in l2, by {half['l2']}, in l∞ not clearly, by {half['linf']}." in readme
    certified = read_table(tables / "certificate.csv").set_index(["dataset", "lam", "measure"])
    certified = certified.loc["fashion_mnist", 0.3].set_index("regularizer", append=True)["mean"]
    hessian, gradient = (
        f"{certified['median radius', name]:.2f} ({100 * certified['clean', name]:.1f}%)"
        for name in ("hessian", "gradient")
    )
    assert f"With λ = 0.3, added later, it is {hessian} against {gradient} there." in readme


@pytest.mark.parametrize("run", ["rivals", "follow-up"])
def test_numbers_of_a_further_run_stand_in_its_tables(run):
    page = (ROOT / "docs/further-runs.md").read_text()
    (part,) = [
        part for part in page.split("\n## ") if f"config/{run}.yaml`" in part.split("\n\n")[1]
    ]
    tables = [
        path for name in (run, "paper") for path in (ROOT / f"reports/{name}/tables").glob("*.md")
    ]
    measured = "".join(path.read_text() for path in tables)
    said = re.findall(r"\d+\.\d+", part)
    assert len(said) >= 10
    assert set(said) <= set(re.findall(r"\d+\.\d+", measured))


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_blocks_run(page, text, tmp_path, monkeypatch):
    if text.startswith("# needs a run"):
        pytest.skip("shown for the results of a run")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "block.py"
    path.write_text(text)
    exec(compile(text, str(path), "exec"), {"__name__": "block"})


# What is read of a data set before its files are there.
OWN_DATA = """
from types import SimpleNamespace
sizes = {"train": 45000, "validation": 5000, "test": 10000}
DATASET = SimpleNamespace(sizes=sizes, image_shape=(3, 32, 32), class_names=tuple("0123456789"))
"""


def own_files(folder):
    """Write the files of the user's own that the pages show, each under the name it is given there."""
    page = (ROOT / "docs/extend.md").read_text()
    names = re.findall(r"Save this\s+as `(\w+\.py)`", page)
    sources = [text for _, kind, text in FENCE.findall(page) if kind == "python"]
    assert len(names) == len(sources) == 2
    for name, source in zip(names, sources, strict=True):
        (folder / name).write_text(source)
    (folder / "my_data.py").write_text(OWN_DATA)
    shallow = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Softplus(10), nn.Linear(64, 10))
    save_file(shallow.state_dict(), folder / "mine.safetensors")


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_configurations_are_valid_when_merged(page, text, tmp_path, monkeypatch):
    own_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    change = yaml.safe_load(text)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, change)
    assert read_config(config).name == change["name"] != "paper"


def test_shell_blocks_name_files_and_options_that_exist():
    seen = 0
    for parameter in blocks("bash"):
        page, text = parameter.values
        for line in text.replace("\\\n", " ").splitlines():
            words = line.split()
            for word in words:
                is_file = re.fullmatch(r"(config|profiles|workflow|benchmarks)/[\w./-]+", word)
                if is_file and "<" not in word:
                    assert (ROOT / word).exists(), f"{page.name}: {word}"
                    seen += 1
            if "--configfile" in words:  # it takes every word after it for a file
                after = words[words.index("--configfile") + 1 :]
                assert all(word.endswith(".yaml") or word.startswith("-") for word in after[:2])
    assert seen >= 10


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/configure/index.html").read_text()
    assert "<code>max_clean_loss</code>" in page  # the table of keys
    assert "hessian minus" in (tmp_path / "site/results/index.html").read_text()  # a released table
    assert (tmp_path / "site/released/pareto.png").exists()
    assert not re.search(r'(src|href)="https?://(fonts|cdn|unpkg)', page)


def test_the_citations_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    ((_, text),) = [parameter.values for parameter in blocks("bibtex")]
    entries = [dict(re.findall(r"(\w+) = {(.*)}", entry)) for entry in text.split("@")[1:]]
    paper, repository = entries
    (cited,) = citation["references"]
    people = [f"{who['family-names']}, {who['given-names']}" for who in cited["authors"]]
    assert paper["title"] == cited["title"]
    assert paper["author"] == " and ".join(people)
    assert paper["year"] == str(cited["year"])
    assert [f"arXiv:{paper['eprint']}"] == [of["value"] for of in cited["identifiers"]]
    assert repository["title"] == citation["title"]
    assert repository["author"] == " and ".join(f"{{{who['name']}}}" for who in citation["authors"])
    assert repository["note"] == f"Version {citation['version']}"
