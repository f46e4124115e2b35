"""Tables say the same in Markdown and in LaTeX, and LaTeX prints what is written."""

import re
import shutil
import subprocess

import pandas as pd
import pytest

from input_hessian.experiment.blocks import Block, latex, to_latex, to_markdown

TABLE = pd.DataFrame({"regularizer": ["my_own", "adversarial-l2"], "λ": ["-0.1", "1 (50%)"]})
BLOCKS = [
    Block(about="Of 200 images."),
    Block("fashion_mnist, l∞ 0.1", "Accuracy in percent:", TABLE),
    Block(about="none, lam 0: 1 seed(s) diverged.", table=TABLE.assign(p="< 0.001")),
]


def test_markdown_has_titles_texts_and_tables():
    assert to_markdown(BLOCKS[:2]) == (
        "Of 200 images.\n\n### fashion_mnist, l∞ 0.1\n\nAccuracy in percent:\n\n"
        "| regularizer    | λ       |\n"
        "|:---------------|:--------|\n"
        "| my_own         | -0.1    |\n"
        "| adversarial-l2 | 1 (50%) |\n"
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("l∞ 0.1 at λ = 1", r"$\ell_\infty$ 0.1 at $\lambda$ = 1"),
        ("an l2 attack of adversarial-l2", r"an $\ell_2$ attack of adversarial-l2"),
        ("robust [95%]: -1.0 [-3.0, +1.0]", r"robust [95\%]: $-$1.0 [$-$3.0, +1.0]"),
        ("cross-checked on 3-5 images", "cross-checked on 3-5 images"),
        ("p < 0.001 & a_b #1 {$}", r"p $<$ 0.001 \& a\_b \#1 \{\$\}"),
        (r"C:\~^", r"C:\textbackslash{}\textasciitilde{}\textasciicircum{}"),
        ("‖H‖ ≤ ε", r"$\|$H$\|$ $\le$ $\varepsilon$"),
    ],
)
def test_latex_prints_what_is_written(text, written):
    assert latex(text) == written


def test_every_table_is_a_float_with_a_caption_and_rules():
    text = to_latex(BLOCKS, "summary")
    assert text.startswith("% \\usepackage{booktabs,graphicx}\n\n\\begin{table}")
    assert (
        r"\caption{Of 200 images. fashion\_mnist, $\ell_\infty$ 0.1. Accuracy in percent.}" in text
    )
    assert re.findall(r"\\label{(.*)}", text) == ["tab:summary-1", "tab:summary-2"]
    assert to_latex([*BLOCKS, Block(about="None diverged.")], "x").endswith("\n\nNone diverged.\n")
    for kind in ("begin", "end"):
        assert text.count(f"\\{kind}{{table}}") == text.count(f"\\{kind}{{tabular}}") == 2
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}\n") == 2
    lines = text.splitlines()
    assert lines.count(r"regularizer & $\lambda$ \\") == 1
    assert lines.count(r"my\_own & $-$0.1 \\") == 1
    assert lines.count(r"adversarial-l2 & 1 (50\%) & $<$ 0.001 \\") == 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex")
def test_latex_compiles(tmp_path):
    hard = pd.DataFrame({r"&%$#_{}\^~<>": ["l∞ ≤ l2 ≥ ε λ ‖H‖ -1"], "wide": ["wide " * 40]})
    (tmp_path / "tables.tex").write_text(to_latex([*BLOCKS, Block(table=hard)], "hard"))
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs,graphicx}\n"
        "\\begin{document}\n\\input{tables}\n\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Overfull" not in done.stdout
    assert "Missing character" not in (tmp_path / "paper.log").read_text()
