"""The command for one network: its numbers are those of the library, its errors one line."""

import subprocess
import sys

import pytest
import torch
import yaml
from helpers.repository import ROOT

from input_hessian.experiment import cli, datasets
from input_hessian.experiment.data import evaluation_images
from input_hessian.experiment.evaluate import evaluate
from input_hessian.experiment.models import build, save_model

MADE = {"architecture": "mlp", "width": 8, "image_shape": [3, 5, 5], "classes": 5}


def run(capsys, *words):
    """Status, standard output and last line of standard error of the command."""
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    said = capsys.readouterr()
    return end.value.code or 0, said.out, (said.err.splitlines() or [""])[-1]


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = build(**MADE).eval()
    images = torch.randint(256, (50, 3, 5, 5), dtype=torch.uint8)
    with torch.no_grad():
        network[-1].bias -= network(images.float() / 255).mean(0)  # no class wins everywhere
    labels = network(images.float() / 255).argmax(1)
    data = {"test_images": images, "test_labels": labels, "test_index": torch.arange(50)}
    provenance = {"class_names": list("abcde"), "sha256": datasets.checksums(data)}
    datasets.save(data, tmp_path / "data/toy.safetensors", provenance)
    save_model(network, MADE, "model.safetensors")
    torch.save(network.state_dict(), "mine.pt")
    return network


def test_every_kind_of_network_gets_the_numbers_of_the_library(network, capsys):
    # At these radii, PGD breaks other numbers of images with seed 5 than with 0.
    asked = ["toy", "--images", "50", "--epsilons.linf", "0.025", "0.04", "--seed", "5"]
    code, ours, _ = run(capsys, "evaluate", "model.safetensors", *asked)
    assert code == 0
    code, theirs, _ = run(
        capsys, "evaluate", "mine.pt", *asked, "--architecture", "mlp", "--options.width", "8"
    )
    assert code == 0
    program = torch.export.export(
        network, (torch.rand(4, 3, 5, 5),), dynamic_shapes={"input": {0: torch.export.Dim.DYNAMIC}}
    )
    torch.export.save(program, "mine.pt2")
    code, exported, _ = run(capsys, "evaluate", "mine.pt2", *asked)
    assert code == 0
    assert ours.splitlines()[1:] == theirs.splitlines()[1:] == exported.splitlines()[1:]
    chosen = evaluation_images("data/toy.safetensors", 50)
    epsilons = {"linf": [0.025, 0.04]}
    table = evaluate(network, chosen.images, chosen.labels, epsilons=epsilons, seed=5)
    assert "clean: 100.0 [" in ours
    for attack, rows in table[table["epsilon"] > 0].groupby("attack"):
        (line,) = (line for line in ours.splitlines() if line.startswith(f"| {attack} "))
        for row in rows.itertuples():
            assert f"{100 * row.robust_accuracy:.1f} [{100 * row.low:.1f}, " in line
    assert "converged: 50 of 50" in ours
    assert "gradient masking: " in ours


def test_defaults_are_those_of_the_configurations():
    for file in ("config.yaml", "config/demo.yaml", "config/cifar10.yaml"):
        content = yaml.safe_load((ROOT / file).read_text())
        for name, entry in content["datasets"].items():
            if entry:
                assert cli.EPSILONS[name] == entry["epsilons"]
    full = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert full["masking"]["queries"] == cli.QUERIES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.safetensors", "mnist"], "error: data/mnist.safetensors: no such file; `snakemake"),
        (["model.safetensors", "toy"], "error: epsilons: toy has no radii by default"),
        (["nowhere.pt", "toy", "--epsilons.l2", "1"], "error: nowhere.pt: no such file"),
        (["mine.pt", "toy", "--epsilons.l2", "1"], "error: mine.pt: expected a model written by"),
        (
            ["mine.pt", "toy", "--epsilons.l2", "1", "--architecture", "cnn"],
            "error: mine.pt: expected the parameters of cnn",
        ),
        (
            ["model.safetensors", "toy", "--epsilons.l2", "1", "--options.width", "8"],
            "error: options: a model of this pipeline has its own",
        ),
        (
            ["model.safetensors", "toy", "--epsilons.l2", "1", "--images", "51"],
            "error: expected between 1 and 50 evaluation images, got 51",
        ),
        (
            ["model.safetensors", "toy", "--epsilons.l1", "1"],
            "error: epsilons: expected linf or l2",
        ),
    ],
)
def test_what_is_wrong_is_one_line(network, capsys, words, message):
    few = [] if "--images" in words else ["--images", "20"]
    code, out, last = run(capsys, "evaluate", *words, *few)
    assert code == 1
    assert out == ""
    assert last.startswith(message)


def test_help_imports_neither_torch_nor_pandas():
    code = "import sys; from input_hessian.experiment import cli\n"
    code += "try: cli.main(['evaluate', '--help'])\n"
    code += "except SystemExit: print(sorted({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--epsilons" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
