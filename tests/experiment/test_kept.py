import pytest

from input_hessian.experiment.kept import keep


@pytest.fixture
def job(tmp_path):
    """A job that counts how often it was done; returns the content of its file."""
    done = []

    def run(fingerprint):
        def make():
            done.append(fingerprint)
            result.write_text(f"{fingerprint} {len(done)}")

        result = tmp_path / "result"
        result.unlink(missing_ok=True)  # as Snakemake does
        keep(tmp_path / "kept", fingerprint, [result], make)
        return result.read_text()

    return run


def test_kept_files_come_back_only_under_their_fingerprint(job):
    assert [job("a"), job("a"), job("b"), job("a")] == ["a 1", "a 1", "b 2", "a 3"]


def test_a_lost_copy_is_made_again(job, tmp_path):
    job("a")
    (tmp_path / "kept/result").unlink()
    assert job("a") == "a 2"


def test_a_damaged_copy_is_made_again(job, tmp_path):
    job("a")
    (tmp_path / "kept/result").write_text("a 9")
    assert job("a") == "a 2"


def test_files_are_kept_where_there_are_no_hard_links(job, monkeypatch):
    def refuse(*_):
        raise OSError("not here")

    monkeypatch.setattr("os.link", refuse)
    assert [job("a"), job("a")] == ["a 1", "a 1"]
