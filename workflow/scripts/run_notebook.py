"""Execute the narrated notebook on one run's results and write it as one HTML file."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from unittest import mock

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpecManager
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor
from nbformat import NotebookNode

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically

PARAMETERS = "parameters"  # tag of the cell that names the run and its folders
NEEDS = "needs-"  # start of the tags of cells that belong to an optional section
TRACEBACK = "Traceback (most recent call last)"
TIMEOUT = 600  # seconds a cell may take: far more than any needs
# nbconvert's own page without the scripts that it would fetch from the web, as wide as a text, with the
# code folded. A table that is wider all the same is scrolled by itself, not with the page.
PAGE = """
{%- extends "index.html.j2" -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style type="text/css">
main { max-width: 64rem; margin: 0 auto; }
.jp-RenderedHTML { overflow-x: auto; }
.jp-RenderedHTML table { font-size: 0.75rem; }
.jp-RenderedHTML :is(td, th) { padding: 0.3em 0.4em; }
details.code summary { cursor: pointer; color: #666; font: 0.8rem sans-serif; }
</style>
{%- endblock -%}
{%- block input_group -%}
<details class="code"><summary>code</summary>{{ super() }}</details>
{%- endblock -%}
"""


def parametrize(notebook: NotebookNode, values: dict[str, str]) -> None:
    """Replace the cell with the tag ``parameters``, which names the run and its folders.

    Raises:
        UserError: unless there is exactly one such cell.
    """
    cells = [cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UserError(
            f"expected one cell with the tag {PARAMETERS!r}, which names the run, got {len(cells)}; "
            "restore it (in Jupyter: Property Inspector, Cell Tags)"
        )
    cells[0].source = "\n".join(f"{name} = {value!r}" for name, value in values.items())


def leave_out(notebook: NotebookNode, computed: list[str]) -> None:
    """Drop every cell with a tag ``needs-<section>`` of which the section was not computed."""
    there = {f"{NEEDS}{section}" for section in computed}
    notebook.cells = [
        cell
        for cell in notebook.cells
        if all(tag in there for tag in cell.metadata.get("tags", []) if tag.startswith(NEEDS))
    ]


def execute(notebook: NotebookNode) -> None:
    """Run every cell in place, in the working folder and by this interpreter.

    Raises:
        UserError: if a cell fails or shows a traceback; the message names the cell and gives its error.
    """
    started = []
    # Without folders to look for kernels in, there is the one of this interpreter alone.
    kernels = KernelSpecManager(kernel_dirs=[])
    executor = ExecutePreprocessor(
        timeout=TIMEOUT,
        record_timing=False,
        on_cell_start=lambda cell, cell_index: started.append(cell),
    )
    try:
        kernel = AsyncKernelManager(kernel_name=NATIVE_KERNEL_NAME, kernel_spec_manager=kernels)
        executor.preprocess(notebook, {"metadata": {"path": "."}}, km=kernel)
    except CellExecutionError as error:
        # The whole traceback goes to the log, the cell and the error into the message. Where its
        # result cannot be displayed, the cell has succeeded, and only its outputs name the error.
        print(error, file=sys.stderr)
        what = next(o for o in started[-1].outputs if o.output_type == "error")
        raise UserError(f"cell {title(started[-1])}: {what.ename}: {what.evalue}") from None
    except (TimeoutError, RuntimeError) as error:  # too slow, or the kernel died
        where = f"cell {title(started[-1])}" if started else "the kernel did not start"
        raise UserError(f"{where}: {type(error).__name__}: {error}") from None
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("text", "")
            if output.output_type == "error":  # the cell succeeded, but a figure cannot be drawn
                text = f"{TRACEBACK}\n{output.ename}: {output.evalue}"
            if TRACEBACK in text:
                last = text.strip().splitlines()[-1]
                raise UserError(f"cell {title(cell)} shows a traceback: {last}")


@contextlib.contextmanager
def without_user_settings() -> Iterator[None]:
    """Keep Jupyter and IPython from the user's kernels, templates, settings and start-up files.

    They write into a folder of their own, so that a home is not needed either.
    """
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
        for name in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP"):
            os.environ.pop(name, None)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            os.environ[name] = folder
        yield


def title(cell: NotebookNode) -> str:
    """Return the cell's name and its first line."""
    return f"{cell.get('id')!r} ({cell.source.strip().partition(chr(10))[0]})"


def main(notebook: Input, *, settings: Settings, page: Output) -> None:
    content = nbformat.read(notebook, as_version=4)
    with without_user_settings():
        try:
            parametrize(content, settings["parameters"])
            leave_out(content, settings["computed"])
            execute(content)
        except UserError as error:
            raise UserError(f"{notebook}: {error}; no {page.name} was written") from None
        exporter = HTMLExporter(
            raw_template=PAGE, exclude_input_prompt=True, exclude_output_prompt=True
        )
        html, _ = exporter.from_notebook_node(
            content, {"metadata": {"name": settings["parameters"]["NAME"]}}
        )
    write_atomically(page, html)


if __name__ == "__main__":
    run(main)
