import copy
import itertools
import subprocess
import sys

import pytest
import torch

from input_hessian import Estimator, HessianPenalty, NoPenalty
from input_hessian.experiment import models, training
from input_hessian.experiment.devices import resolve_device
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.inference import evaluate, predict
from input_hessian.experiment.training import TrainingSettings, train
from input_hessian.penalties import Objective

SETTINGS = TrainingSettings(epochs=4, batch_size=32, learning_rate=0.01, seed=3)
MODEL = {
    "architecture": "cnn",
    "width": 2,
    "activation": "softplus",
    "beta": 10.0,
    "image_shape": (1, 6, 6),
    "classes": 2,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    """Images whose class is the brighter half; 100 is not a multiple of the batch size."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(100, 1, 6, 6, generator=generator)
    labels = torch.arange(100) % 2
    images[labels == 1, :, :3] *= 0.3
    images[labels == 0, :, 3:] *= 0.3
    return images, labels


def run(data, regularizer=None, settings=SETTINGS, **options):
    regularizer = regularizer or HessianPenalty(lam=0.1, estimator=Estimator(start="random"))
    return train(
        lambda: models.build(**MODEL), regularizer, data, data, settings, device=CPU, **options
    )


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def without_time(curve):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in curve]


def test_learns_a_separable_problem(data):
    settings = TrainingSettings(epochs=12, batch_size=32, learning_rate=0.05, seed=3)
    model, result = run(data, NoPenalty(), settings)
    assert result.status == "finished"
    assert [row["epoch"] for row in result.curve] == list(range(1, 13))
    assert result.curve[-1]["validation_accuracy"] > 0.95
    assert evaluate(model, *data)[1] == result.curve[-1]["validation_accuracy"]


@pytest.mark.parametrize("name", ["loss", "penalty"])
def test_an_objective_that_is_no_value_per_image_is_refused(data, name):
    def averaged(model, images, labels, generator):
        objective = NoPenalty()(model, images, labels)
        return objective._replace(**{name: getattr(objective, name).mean()})

    with pytest.raises(
        UserError, match=rf"penalty: expected a {name} of shape \(32,\), .* got \(\)"
    ):
        run(data, averaged)


def test_same_seed_same_bits_and_other_seed_other_network(data):
    first, again = run(data), run(data)
    assert torch.equal(parameters(first[0]), parameters(again[0]))
    assert without_time(first[1].curve) == without_time(again[1].curve)
    other, _ = run(data, settings=TrainingSettings(4, 32, 0.01, seed=4))
    assert not torch.equal(parameters(first[0]), parameters(other))


def test_global_random_state_is_neither_used_nor_changed(data):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, _ = run(data)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second, _ = run(data)
    assert torch.equal(parameters(first), parameters(second))


class Interrupted(Exception):
    pass


class Interrupting:
    """A regularizer that is stopped from outside at one step."""

    def __init__(self, inner, step):
        self.inner, self.step, self.calls = inner, step, itertools.count()

    def __call__(self, *arguments):
        if next(self.calls) == self.step:
            raise Interrupted
        return self.inner(*arguments)


@pytest.mark.parametrize("step", [2, 4, 10])  # in the first epoch, at a border, in the third
def test_resumed_run_equals_an_uninterrupted_one(data, tmp_path, step):
    regularizer = HessianPenalty(lam=0.1, estimator=Estimator(start="random"))
    whole, whole_result = run(data, regularizer)
    options = {"checkpoint": tmp_path / "checkpoint.pt", "fingerprint": "a"}
    with pytest.raises(Interrupted):
        run(data, Interrupting(regularizer, step), **options)
    counting = Interrupting(regularizer, step=None)
    resumed, result = run(data, counting, **options)
    assert torch.equal(parameters(whole), parameters(resumed))
    assert without_time(result.curve) == without_time(whole_result.curve)
    assert next(counting.calls) == 16 - 4 * (step // 4)  # at most one epoch is done twice


def test_checkpoint_of_other_settings_is_ignored(data, tmp_path, capsys):
    options = {"checkpoint": tmp_path / "checkpoint.pt"}
    run(data, **options, fingerprint="old code")
    counting = Interrupting(NoPenalty(), step=None)
    run(data, counting, **options, fingerprint="new code")
    assert next(counting.calls) == 16
    assert "starting afresh" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_not_resumed_from(data, tmp_path, capsys):
    """One bit of a parameter, which torch.load would believe."""
    path = tmp_path / "checkpoint.pt"
    options = {"checkpoint": path, "fingerprint": "a"}
    whole, _ = run(data, NoPenalty(), **options)
    content = path.read_bytes()
    weights = torch.load(path, weights_only=True)["parts"]["model"]
    weights = next(iter(weights.values())).numpy().tobytes()
    place = content.index(weights)
    path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
    counting = Interrupting(NoPenalty(), step=None)
    again, _ = run(data, counting, **options)
    assert next(counting.calls) == 16
    assert "damaged" in capsys.readouterr().out
    assert torch.equal(parameters(again), parameters(whole))


@pytest.mark.parametrize("where", ["loss", "parameters"])
def test_divergence_is_a_status_and_keeps_the_last_finite_epoch(data, where):
    plain = NoPenalty()
    calls = itertools.count()

    def diverging(model, images, labels, generator):
        objective = plain(model, images, labels, generator)
        if next(calls) < 7:  # the last step of the second epoch diverges
            return objective
        if where == "loss":
            return objective._replace(penalty=objective.loss * float("nan"))
        # a finite objective whose derivative is not: sqrt at zero
        zero = (objective.loss - objective.loss.detach()).sqrt()
        return Objective(objective.loss, zero, objective.logits)

    model, result = run(data, diverging)
    assert result.status == "diverged"
    assert len(result.curve) == 1

    calls = itertools.count()

    class Stop(Exception):
        pass

    def one_epoch(*arguments):
        if next(calls) == 4:
            raise Stop
        return plain(*arguments)

    kept = []
    with pytest.raises(Stop):
        train(
            lambda: kept.append(models.build(**MODEL)) or kept[0],
            one_epoch,
            data,
            data,
            SETTINGS,
            device=CPU,
        )
    assert torch.equal(parameters(model), parameters(kept[0]))


def test_curve_holds_epoch_means_of_loss_and_penalty(data):
    class Constant:
        def __call__(self, model, images, labels, generator):
            plain = NoPenalty()(model, images, labels, generator)
            return plain._replace(
                loss=plain.loss * 0 + 2, penalty=images.new_full([len(images)], 3)
            )

    _, result = run(data, Constant())
    assert [(row["loss"], row["penalty"], row["steps"]) for row in result.curve] == [(2, 3, 4)] * 4


def test_predict_restores_order_and_uses_evaluation_mode(data):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(36, 2))
    logits = predict(model.train(), data[0], batch_size=7)
    assert torch.allclose(logits, model[2](data[0].flatten(1)), atol=1e-6)


def test_unusable_devices_are_explained():
    assert resolve_device("cpu") == CPU
    with pytest.raises(UserError, match="expected auto, cpu, cuda or mps, got 'gpu'"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cuda was asked for"):
            resolve_device("cuda")


@pytest.mark.parametrize("steps", [7, 40])
def test_adam_under_one_cycle_is_that_of_pytorch_to_the_last_bit(steps):
    torch.manual_seed(0)
    images, labels = torch.rand(16, 5), torch.randint(3, (16,))
    first = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Softplus(), torch.nn.Linear(8, 3))
    first.register_parameter("unused", torch.nn.Parameter(torch.ones(2)))
    second = copy.deepcopy(first)
    ours = training.OneCycleAdam(first.parameters(), 0.01, steps)
    theirs = torch.optim.Adam(second.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.01, total_steps=steps)
    for step in range(steps):
        for model, optimizer in ((first, ours), (second, theirs)):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step() if step < steps - 1 else None
        for mine, other in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(mine, other), step
        if step == steps // 2:  # as from a checkpoint
            saved = copy.deepcopy(ours.state_dict())
            ours = training.OneCycleAdam(first.parameters(), 0.01, steps)
            ours.load_state_dict(saved)


def test_training_imports_no_compiler():
    """It takes as long to import as all else, in every job."""
    code = (
        "import sys, torch\n"
        "from input_hessian.experiment.devices import configure\n"
        "from input_hessian.experiment.training import OneCycleAdam\n"
        "configure('cpu', 1)\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "optimizer = OneCycleAdam([weight], 0.1, 10)\n"
        "weight.sum().backward()\n"
        "optimizer.step()\n"
        "assert weight[0] < 1\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
