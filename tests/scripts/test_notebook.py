"""The notebook is stored without results, and what is made of one that runs and one that fails."""

import io
import json
import re
import sys

import nbformat
import pytest
import run_notebook
from helpers.repository import ROOT
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook

from input_hessian.experiment.command import run

NOTEBOOK = ROOT / "workflow/notebooks/results.ipynb"
PARAMETERS = {
    "source": 'NAME = "by hand"',
    "id": "parameters",
    "metadata": {"tags": ["parameters"]},
}

SETTINGS = "{parameters: {NAME: run's name, REPORT: here}, computed: [cost]}"


def code_cells():
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_committed_notebook_holds_no_results():
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    assert notebook.nbformat == 4
    nbformat.validate(notebook)
    assert len(code_cells()) > 10
    for cell in code_cells():
        assert cell.outputs == []
        assert cell.execution_count is None
        assert "execution" not in cell.metadata  # Jupyter's timestamps
    assert [cell.id for cell in code_cells() if "parameters" in cell.metadata.get("tags", [])] == [
        "parameters"
    ]


def test_code_cells_compile():
    for cell in code_cells():
        compile(TransformerManager().transform_cell(cell.source), cell.id, "exec")


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Run the script on two cells, the name and a given one; return where the page belongs."""
    monkeypatch.chdir(tmp_path)
    output = tmp_path / "out/notebook.html"

    def execute(*cells):
        notebook = new_notebook(cells=[new_code_cell(**cell) for cell in cells])
        nbformat.write(notebook, "two.ipynb")
        arguments = ["--notebook", "two.ipynb", "--page", str(output)]
        monkeypatch.setattr(sys, "argv", ["run_notebook.py", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(SETTINGS))
        run(run_notebook.main)
        return output.read_text()

    execute.output = output
    return execute


def test_page_holds_the_output_for_the_given_name(page, tmp_path):
    text = page(
        PARAMETERS,
        {"source": "import os, sys; print(NAME.upper(), sys.prefix, os.getcwd())", "id": "shout"},
    )
    assert "RUN'S NAME" in text
    assert sys.prefix in text  # this environment, whatever kernels are installed
    assert str(tmp_path) in text
    assert "by hand" not in text
    assert not re.search(r"(src|href|from|import)\s*=?\s*['\"]https?://", text)  # self-contained
    assert len(text) < 500_000
    code = re.findall(
        r"<details class=\"code\"><summary>code</summary>.*?</details>", text, re.DOTALL
    )
    assert len(code) == 2  # each cell's, folded; what it prints is not
    assert "upper" in code[1]
    assert "RUN'S NAME" not in code[1]
    names = sorted(path.name for path in page.output.parent.iterdir())
    assert names == [".notebook.html.sha256", "notebook.html"]


def test_failing_cell_is_named_and_leaves_no_page(page, capfd):
    with pytest.raises(SystemExit) as stopped:
        page(PARAMETERS, {"source": "missing = {}\nmissing[NAME]", "id": "look-up"})
    assert stopped.value.code == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: two.ipynb: cell 'look-up' (missing = {}): KeyError: ")
    assert "run's name" in last
    assert not page.output.parent.exists()


@pytest.mark.parametrize(
    "source",
    [
        "class Figure:\n    def _repr_html_(self):\n        raise ValueError('no LaTeX')\nFigure()",
        "import traceback\ntry:\n    raise ValueError('no LaTeX')\nexcept ValueError:\n"
        "    traceback.print_exc()",
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nclass Line(plt.Line2D):\n"
        "    def draw(self, renderer):\n        raise ValueError('no LaTeX')\n"
        "plt.gca().add_artist(Line([], []))\nplt.show()",
    ],
)
def test_a_traceback_in_the_page_is_a_failure(page, capfd, source):
    with pytest.raises(SystemExit) as stopped:
        page(PARAMETERS, {"source": source, "id": "figure"})
    assert stopped.value.code == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: two.ipynb: cell 'figure' (")
    assert "ValueError: no LaTeX" in last
    assert not page.output.parent.exists()


def test_what_the_user_has_set_up_for_jupyter_and_python_changes_no_page(
    page, tmp_path, monkeypatch
):
    """A kernel of the same name, a template, start-up files; and a home that is none."""
    spec = {"argv": ["false"], "display_name": "Python 3", "language": "python"}
    kernel = tmp_path / "jupyter/kernels/python3/kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(spec))
    template = tmp_path / "jupyter/nbconvert/templates/lab/index.html.j2"
    template.parent.mkdir(parents=True)
    template.write_text("the user's own page")
    startup = tmp_path / "ipython/profile_default/startup/mine.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("print('the IPython start-up')")
    (tmp_path / "startup.py").write_text("print('the Python start-up')")
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "startup.py"))
    monkeypatch.setenv("HOME", "/dev/null")
    text = page(PARAMETERS, {"source": "import sys; print(sys.executable)", "id": "python"})
    assert sys.executable in text
    assert "start-up" not in text
    assert "own page" not in text


def test_notebook_without_its_parameter_is_refused(page, capfd):
    with pytest.raises(SystemExit) as stopped:
        page({"source": "NAME", "id": "parameters"})
    assert stopped.value.code == 1
    assert "tag 'parameters'" in capfd.readouterr().err
    assert not page.output.parent.exists()


def test_cells_of_sections_that_were_not_computed_are_left_out(page):
    def needs(section, what):
        return {"source": f"print({what!r})", "metadata": {"tags": [f"needs-{section}"]}}

    text = page(PARAMETERS, needs("cost", "step timed"), needs("masking", "masks sought"))
    assert "step timed" in text
    assert "masks sought" not in text


def test_every_section_that_the_notebook_knows_is_known_to_the_workflow():
    rules = (ROOT / "workflow/rules/figures.smk").read_text()
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    sections = {tag.removeprefix("needs-") for tag in tags if tag.startswith("needs-")}
    assert sections == {
        "selection",
        "stronger_attacks",
        "masking",
        "curvature",
        "cost",
        "comparison",
    }
    assert all(f'    "{section}": CONFIG.' in rules for section in sections)
