"""What scripts read of other jobs' results: verified, and refused in one sentence if damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from input_hessian.experiment.checksums import verified
from input_hessian.experiment.errors import UserError


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Return a table.

    Raises:
        UserError: if the file is missing, damaged or no parquet table.
    """
    try:
        return pd.read_parquet(verified(Path(path)))
    except (OSError, ValueError) as error:  # pyarrow's errors are one of the two
        raise _damaged(path, "a parquet table", error) from None


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: if the file is missing, damaged or no JSON.
    """
    try:
        return json.loads(verified(Path(path)).read_text("utf-8"))
    except ValueError as error:
        raise _damaged(path, "JSON", error) from None


def read_csv(path: str | Path, columns: list[str]) -> pd.DataFrame:
    """Return a table of numbers.

    Raises:
        UserError: if the file is missing or damaged, has other columns, or anything but numbers.
    """
    try:
        table = pd.read_csv(verified(Path(path)))
        table.astype(float)
    except ValueError as error:
        raise _damaged(path, "a table of numbers", error) from None
    if list(table.columns) != columns:
        raise _damaged(
            path, f"the columns {', '.join(columns)}", ", ".join(map(str, table.columns))
        )
    return table


def _damaged(path: str | Path, expected: str, got: Any) -> UserError:
    if isinstance(got, UserError):  # it says the same already
        return got
    return UserError(
        f"{path}: expected {expected}, got {str(got).splitlines()[0]}; delete the file and run snakemake "
        "again, which makes it anew"
    )
