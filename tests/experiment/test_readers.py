"""What is read of other jobs' results, damaged in every way, ends in one sentence."""

import json

import pandas as pd
import pytest

from input_hessian.experiment.checksums import record_checksum
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.readers import read_csv, read_json, read_parquet

TABLE = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25]})
COLUMNS = list(TABLE)
KINDS = {
    "table.parquet": (read_parquet, TABLE.to_parquet(index=False)),
    "record.json": (read_json, json.dumps({"a": [1]}).encode()),
    "curve.csv": (lambda path: read_csv(path, COLUMNS), TABLE.to_csv(index=False).encode()),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_was_written_is_read(name, tmp_path):
    read, content = KINDS[name]
    (tmp_path / name).write_bytes(content)
    found = read(tmp_path / name)
    assert found.equals(TABLE) if isinstance(found, pd.DataFrame) else found == {"a": [1]}


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe\x00", b"loss,epoch\n0.5,1\n", b"epoch,loss\n1,x\n"]
)
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_without_its_checksum_is_named_with_a_remedy(name, damage, tmp_path):
    read, _ = KINDS[name]
    path = tmp_path / name
    path.write_bytes(damage)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: expected ")
    assert str(error.value).endswith(
        "; delete the file and run snakemake again, which makes it anew"
    )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_still_parses_is_not_believed_against_its_checksum(name, tmp_path):
    read, content = KINDS[name]
    path = tmp_path / name
    path.write_bytes(content)
    record_checksum(path)
    path.write_bytes(content.replace(b"1", b"2", 1))
    with pytest.raises(UserError, match="SHA-256"):
        read(path)
    path.unlink()
    with pytest.raises(UserError, match="expected a file, found none"):
        read(path)
