from input_hessian.experiment.provenance import fingerprint


def test_fingerprint_changes_with_what_a_result_depends_on_and_with_nothing_else(tmp_path):
    code, where = tmp_path / "code.py", {"torch": "2", "device": "cpu", "threads": 1, "commit": "a"}
    code.write_text("x")
    first = fingerprint({"a": 1, "b": 2}, where, [code])
    assert fingerprint({"b": 2, "a": 1}, where | {"commit": "b"}, [code]) == first
    for key, value in {"torch": "3", "device": "H100", "threads": 2}.items():
        assert fingerprint({"a": 1, "b": 2}, where | {key: value}, [code]) != first
    assert fingerprint({"a": 1, "b": 3}, where, [code]) != first
    code.write_text("y")
    assert fingerprint({"a": 1, "b": 2}, where, [code]) != first
