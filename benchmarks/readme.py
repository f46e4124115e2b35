"""Tables of benchmarks/README.md, each written by the script that measured it."""

from pathlib import Path

from input_hessian.experiment.files import write_atomically

README = Path(__file__).with_name("README.md")


def write_table(script: str, table: str) -> None:
    """Put a table between the README's markers for a script."""
    begin, end = f"<!-- table: written by {script} -->", "<!-- end of table -->"
    before, rest = README.read_text().split(begin)
    _, after = rest.split(end, 1)
    write_atomically(README, f"{before}{begin}\n{table}\n{end}{after}")
