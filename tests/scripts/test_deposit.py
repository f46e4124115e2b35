"""A deposit is a valid RO-Crate whose files are all there, and equal runs have equal deposits."""

import importlib.resources
import json
import re
import zipfile

import deposit
import pytest
import yaml
from helpers.repository import ROOT
from rocrate_validator import services
from rocrate_validator.models import Severity

from input_hessian.experiment.errors import UserError

CELL = "results/small/mnist/none/lam~0/seed~0"
GRID = {"results": "results/small", "datasets": {"mnist": {"none": ["0"]}}, "seeds": [0]}
RECORD = {
    "name": "small",
    "config": {"name": "small", "seeds": [0]},
    "seeds": [0],
    "cells": {"finished": 1},
    "versions": {"snakemake": "9.27.1"},
    "data": {"mnist": {"file": "data/mnist.safetensors", "sha256": "abc"}},
    "written_by": {"time": "2026-01-02T03:04:05+00:00", "commit": "abcdef0"},
}
REPORT = ["provenance.md", "notebook.html", "tables/summary.csv", "tables/summary.tex"]
REPORT += ["figures/pareto.png", "networks/mnist.none.safetensors", "networks/README.md"]
PROJECT = ["CITATION.cff", "LICENSE", "README.md", "Snakefile", "pyproject.toml"]
PROJECT += ["workflow/Snakefile", "src/input_hessian/__init__.py"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The files of a run; return a function that packs them, with further ones of the user's own."""
    monkeypatch.chdir(tmp_path)
    for name in [*(f"reports/small/{name}" for name in REPORT), f"{CELL}/images.parquet"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / CELL / "model.safetensors").write_text("not the selected one")
    record = tmp_path / "reports/small/provenance.json"
    record.write_text(json.dumps(RECORD))
    made = [record.parent / name for name in REPORT]

    def pack(name="deposit.zip", own=()):
        project = [*(ROOT / name for name in PROJECT), *own]
        settings = {"grid": GRID}
        deposit.main(record, [], made, project, settings=settings, archive=tmp_path / name)
        return tmp_path / name

    return pack


def test_a_deposit_is_a_valid_workflow_run_crate(run, tmp_path):
    with zipfile.ZipFile(run()) as archive:
        archive.extractall(tmp_path / "crate")
    path = tmp_path / "crate/ro-crate-metadata.json"
    metadata = json.loads(path.read_text())
    assert metadata["@context"] == [
        "https://w3id.org/ro/crate/1.1/context",
        "https://w3id.org/ro/terms/workflow-run/context",
    ]
    # In place of what these addresses hold: the context of RO-Crate 1.3, which the library brings, with
    # the term that had another meaning in 1.1.
    text = importlib.resources.files("rocrate").joinpath("data/ro-crate.jsonld").read_text()
    terms = {"ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow"}
    path.write_text(json.dumps(metadata | {"@context": json.loads(text)["@context"] | terms}))
    settings = services.ValidationSettings(
        rocrate_uri=str(tmp_path / "crate"),
        profile_identifier="workflow-run-crate",
        requirement_severity=Severity.RECOMMENDED,
        offline=True,
        cache_path=tmp_path / "cache",
    )
    issues = services.validate(settings).get_issues()
    required = [issue.message for issue in issues if issue.severity is Severity.REQUIRED]
    assert not required
    # All that is recommended and missing: addresses of the workflow and its authors, which have none, and
    # a publisher, which is who takes the deposit.
    assert {str(issue.message) for issue in issues} == {
        "The Application SHOULD have a url",
        "The SoftwareApplication id SHOULD be an absolute URI",
        "The organization SHOULD have a URL.",
        "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
    }


def test_a_deposit_holds_all_that_was_made_and_what_makes_it_again(run):
    with zipfile.ZipFile(run()) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert content.keys() == {
        *(f"reports/small/{name}" for name in [*REPORT, "provenance.json"]),
        *(f"{CELL}/images.parquet", "ro-crate-metadata.json", "config.yaml"),
        *PROJECT,
    }
    assert yaml.safe_load(content["config.yaml"]) == RECORD["config"]
    assert content["workflow/Snakefile"] == (ROOT / "workflow/Snakefile").read_bytes()
    graph = json.loads(content["ro-crate-metadata.json"])["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    action, root = entities["#run"], entities["./"]
    assert root["mainEntity"] == action["instrument"] == {"@id": "workflow/Snakefile"}
    assert action["endTime"] == root["datePublished"] == RECORD["written_by"]["time"]
    results = {entry["@id"] for entry in action["result"]}
    assert results == {
        *(f"reports/small/{name}" for name in [*REPORT, "provenance.json"]),
        "results/small/",
    }
    assert {"@id": "config.yaml"} in action["object"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (author,) = citation["authors"]
    assert entities[root["author"]["@id"]]["name"] == author["name"]
    assert root["license"] == {"@id": f"https://spdx.org/licenses/{citation['license']}"}


def test_equal_runs_have_equal_deposits(run, tmp_path):
    first = run().read_bytes()
    (tmp_path / CELL / "images.parquet").touch()
    assert run("again.zip").read_bytes() == first


def test_files_of_the_users_own_keep_their_place(run, tmp_path, tmp_path_factory):
    (tmp_path / "penalties").mkdir()
    own = tmp_path / "penalties/mine.py"
    own.write_text("mine")
    with zipfile.ZipFile(run(own=[own])) as archive:
        assert archive.read("penalties/mine.py") == b"mine"
    outside = tmp_path_factory.mktemp("outside") / "mine.py"
    outside.write_text("mine")
    with pytest.raises(UserError, match=re.escape(f"{outside}: expected files of your own in")):
        run(own=[outside])
