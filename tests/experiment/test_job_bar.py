import io

import pytest

from input_hessian.experiment.job_bar import JobBar


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bar(clock):
    """Two trainings and two figures to make, at second 0."""
    bar = JobBar({1: "train", 2: "train", 3: "draw", 4: "draw"}, io.StringIO(), clock)
    yield bar
    bar.close()


def test_nothing_is_estimated_before_a_job_has_finished(bar, clock):
    bar.start(1, "train")
    clock.now = 5
    assert bar.seconds_left() is None


def test_jobs_take_as_long_as_those_of_their_rule_and_else_as_all(bar, clock):
    bar.start(1, "train")
    clock.now = 10
    bar.finish(1)
    assert bar.seconds_left() == pytest.approx(30)  # three more like this one
    bar.start(3, "draw")
    clock.now = 12
    bar.finish(3)
    assert bar.seconds_left() == pytest.approx(10 + 2)
    bar.start(2, "train")
    clock.now = 16
    assert bar.seconds_left() == pytest.approx(6 + 2)
    clock.now = 30  # it takes longer than expected
    assert bar.seconds_left() == pytest.approx(2)


def test_two_jobs_at_once_halve_the_time(bar, clock):
    bar.start(1, "train")
    bar.start(2, "train")
    clock.now = 10
    bar.finish(1)
    bar.finish(2)
    assert bar.seconds_left() == pytest.approx(10)


def test_a_failed_job_is_not_awaited_but_may_be_tried_again(bar, clock):
    for job in (1, 3):
        bar.start(job, "train" if job == 1 else "draw")
    clock.now = 10
    bar.finish(1)
    bar.fail(3)
    assert bar.failed == {3}
    bar.start(3, "draw")
    assert not bar.failed
    assert set(bar.waiting) == {2, 4}


def test_it_is_drawn_below_what_is_printed_and_leaves_nothing(bar):
    bar.start(1, "train")
    bar.finish(1)
    with bar.aside():
        bar.file.write("a message\n")
    bar.bar.refresh()
    *above, last = bar.file.getvalue().split("\n")
    assert above[-1].endswith("\ra message")
    assert "1 of 4 jobs" in last
    bar.close()
    assert bar.file.getvalue().split("\n")[-1].split("\r")[-2].strip() == ""
