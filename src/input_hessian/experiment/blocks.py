"""The tables that people read, as Markdown and as LaTeX: the same words and numbers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

# What LaTeX prints otherwise than it is written.
SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    | {character: f"${character}$" for character in "<>"}
    | {"≤": r"$\le$", "≥": r"$\ge$", "ε": r"$\varepsilon$", "λ": r"$\lambda$", "‖": r"$\|$"}
)
SYMBOLS = {
    r"(?<![\w-])l∞": r"$\ell_\infty$",
    r"(?<![\w-])l2(?!\w)": r"$\ell_2$",  # not the end of a name like adversarial-l2
    r"(?<!\w)-(?=\d)": "$-$",
}


@dataclass(frozen=True)
class Block:
    """A part of such a file: a title, what the numbers are, and a table of texts; each may be missing."""

    title: str = ""
    about: str = ""
    table: pd.DataFrame | None = None


def to_markdown(blocks: Iterable[Block]) -> str:
    """Return the blocks as Markdown."""
    texts = []
    for block in blocks:
        parts = [f"### {block.title}" if block.title else "", block.about]
        if block.table is not None:
            parts.append(block.table.to_markdown(index=False, disable_numparse=True))
        texts.append("\n\n".join(part for part in parts if part) + "\n")
    return "\n".join(texts)


def to_latex(blocks: Iterable[Block], label: str) -> str:
    r"""Return every table as a float, title and explanation its caption, with the texts before it.

    Needs the packages booktabs and graphicx: a table that is wider than the line is scaled down.

    Args:
        blocks: the parts.
        label: the tables are ``\ref{tab:<label>-1}``, ``\ref{tab:<label>-2}``, ...
    """
    texts, tables, before = [r"% \usepackage{booktabs,graphicx}"], 0, []
    for block in blocks:
        before += [part.rstrip(".:") for part in (block.title, block.about) if part]
        if block.table is None:
            continue
        caption, before = latex(". ".join(before)), []
        tables += 1
        shown = block.table.map(latex).rename(columns=latex).style.hide(axis="index")
        tabular = shown.to_latex(hrules=True, column_format="l" * block.table.shape[1])
        texts.append(
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{caption}.}}\n\\label{{tab:{label}-{tables}}}\n"
            "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
            f"{tabular.rstrip()}}}\n\\end{{table}}"
        )
    if before:
        texts.append(latex(". ".join(before)) + ".")
    return "\n\n".join(texts) + "\n"


def latex(text: str) -> str:
    """Return a text for LaTeX's text mode."""
    text = text.translate(SPECIAL)
    for pattern, symbol in SYMBOLS.items():
        text = re.sub(pattern, symbol.replace("\\", "\\\\"), text)
    return text
