"""Cells trained together are the cells trained one by one."""

import itertools

import pytest
import torch
from torch import nn

from input_hessian import InputHessian, models, regularizers
from input_hessian.batched_training import divide, train_together
from input_hessian.curvature import vector_norm
from input_hessian.errors import UserError
from input_hessian.stacking import Fold, SeparateGenerators, StackedNetwork, Unfold
from input_hessian.taylor import LayerwiseHessian
from input_hessian.training import TrainingSettings, train

CPU = torch.device("cpu")
SHAPE, CLASSES = (2, 7, 6), 3
ESTIMATORS = {
    "softmax": {"method": "power", "start": "softmax", "hvps": 2},
    "random": {"method": "lanczos", "start": "random", "hvps": 3},
    "ascent": {"method": "ascent", "start": "random", "hvps": 3, "step_size": 1.0},
}
PENALTIES = {
    "none": ({"penalty": "none"}, (0, 0, 0)),
    "gradient": ({"penalty": "gradient", "squared": False}, (0.1, 1, 3)),
    **{
        f"hessian, {name}": (
            {"penalty": "hessian", "squared": False, "estimator": estimator},
            (0.1, 1, 3),
        )
        for name, estimator in ESTIMATORS.items()
    },
    "hessian, squared": (
        {"penalty": "hessian", "squared": True, "estimator": ESTIMATORS["softmax"]},
        (0.1, 1, 3),
    ),
    "taylor": ({"penalty": "taylor", "estimator": ESTIMATORS["softmax"]}, (0.1, 0.5, 1)),
    "cure": ({"penalty": "cure", "step": 1.0}, (0.1, 1, 3)),
    "jacobian": ({"penalty": "jacobian", "n_proj": 2}, (0.01, 0.1, 1)),
    "adversarial, linf": ({"penalty": "adversarial", "norm": "linf", "steps": 3}, (0.1,) * 3),
    "adversarial, l2": ({"penalty": "adversarial", "norm": "l2", "steps": 3}, (0.5,) * 3),
}
SEEDS = (0, 1, 0)  # the first and last cell differ in lam alone (where it may), the others in seed
ARCHITECTURES = ("cnn", "mlp")
EPOCHS, LEARNING_RATE = 3, 0.02
# Adam's step, lr m / (sqrt(v) + 1e-8), changes by at most lr / 1e-8 times what the gradient changes
# by, which is rounding: here below 1e-15, in each of 4 steps an epoch. A curve's values have, in
# these parameters, derivatives below 100.
TOLERANCE = 4 * EPOCHS * LEARNING_RATE / 1e-8 * 1e-15


def network(architecture="cnn", dtype=torch.float64):
    model = models.build(
        architecture=architecture,
        width=4,
        activation="softplus",
        beta=5.0,
        image_shape=SHAPE,
        classes=CLASSES,
    )
    return model.to(dtype)


def networks(count=3, architecture="cnn"):
    result = []
    for seed in range(count):
        torch.manual_seed(seed)
        result.append(network(architecture))
    return result


def data(dtype=torch.float64, images=50):
    """Images whose class is the brightest third; 50 is no multiple of the batch size."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % CLASSES
    pictures = torch.rand(images, *SHAPE, generator=generator, dtype=torch.float64)
    for label in range(CLASSES):
        pictures[labels == label, :, :, 2 * label : 2 * label + 2] += 1
    return (pictures / 2).to(dtype), labels


def batch(rows):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(rows, *SHAPE, dtype=torch.float64, generator=generator)
    weights = torch.randn(images.shape, dtype=torch.float64, generator=generator)
    return images, torch.randint(CLASSES, (rows,), generator=generator), weights


def cells(name):
    shared, lams = PENALTIES[name]
    penalties = [shared | {"lam": float(lam)} for lam in lams]
    return penalties, [TrainingSettings(EPOCHS, 16, LEARNING_RATE, seed) for seed in SEEDS]


def one_by_one(name, dtype, architecture):
    found = [
        train(
            lambda: network(architecture, dtype),
            regularizers.build(**penalty),
            data(dtype),
            data(dtype),
            own,
            device=CPU,
        )
        for penalty, own in zip(*cells(name), strict=True)
    ]
    return found


def together(name, dtype, architecture="cnn", **options):
    penalties, settings = cells(name)
    return train_together(
        lambda: network(architecture, dtype),
        penalties,
        data(dtype),
        data(dtype),
        settings,
        device=CPU,
        **options,
    )


def parameters(model):
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def without_time(curve):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in curve]


def derivatives(kind, model, images, labels, weights):
    """Logits, gradient and product of every row, and the parameter gradient of all that."""
    hessian = kind(model, images, labels)
    product = hessian.matvec(weights, create_graph=True)
    value = (
        hessian.loss + vector_norm(hessian.gradient) + (product * weights.cos()).flatten(1).sum(1)
    )
    gradients = torch.autograd.grad(value.sum(), list(model.parameters()))
    return (hessian.logits, hessian.gradient, product), gradients


@pytest.mark.parametrize("kind", [InputHessian, LayerwiseHessian])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stack_is_its_networks(architecture, kind):
    parts = networks(architecture=architecture)
    stack = StackedNetwork(parts)
    rows = batch(12)
    values, gradients = derivatives(kind, stack, *rows)
    with torch.no_grad():  # so that a network's gradients are read like its parameters
        for parameter, gradient in zip(stack.parameters(), gradients, strict=True):
            parameter.copy_(gradient)
    for i, part in enumerate(parts):
        own_rows = [tensor[4 * i : 4 * i + 4] for tensor in rows]
        own_values, own_gradients = derivatives(InputHessian, part, *own_rows)
        for value, own in zip(values, own_values, strict=True):
            torch.testing.assert_close(value[4 * i : 4 * i + 4], own, rtol=1e-11, atol=1e-13)
        found = stack.network_state(i)
        assert found.keys() == part.state_dict().keys()
        for gradient, own in zip(found.values(), own_gradients, strict=True):
            torch.testing.assert_close(gradient, own, rtol=1e-11, atol=1e-12)


def test_network_state_is_a_copy_of_the_networks_parameters():
    parts = networks()
    stack = StackedNetwork(parts)
    for i, part in enumerate(parts):
        found = stack.network_state(i)
        for name, value in part.state_dict().items():
            assert torch.equal(found[name], value)
        found["0.weight"].zero_()
        assert torch.equal(stack.network_state(i)["0.weight"], part.state_dict()["0.weight"])


def test_layers_of_every_kind_are_stacked():
    def part():
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False),
            nn.Tanh(),
            nn.Conv2d(4, 2, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12, 5, bias=False),
            nn.Softplus(3),
            nn.Linear(5, CLASSES),
        ).double()

    parts = [part() for _ in range(2)]
    images, labels, weights = batch(6)
    values, _ = derivatives(LayerwiseHessian, StackedNetwork(parts), images, labels, weights)
    for i, own in enumerate(parts):
        rows = slice(3 * i, 3 * i + 3)
        expected, _ = derivatives(InputHessian, own, images[rows], labels[rows], weights[rows])
        for value, alone in zip(values, expected, strict=True):
            torch.testing.assert_close(value[rows], alone, rtol=1e-11, atol=1e-13)


def test_a_layer_that_cannot_be_stacked_is_named():
    parts = [nn.Sequential(nn.Flatten(), nn.Linear(84, 3), nn.Dropout()) for _ in range(2)]
    with pytest.raises(UserError, match=r"Dropout: expected one of Conv2d, Linear, .*batch_cells"):
        StackedNetwork(parts)


def test_unfold_undoes_fold():
    rows = torch.rand(6, 2, 5, 4)
    folded = Fold(3)(rows)
    assert folded.shape == (2, 6, 5, 4)
    assert torch.equal(folded[1, 2:4], rows[3])  # the second image of the second network
    assert torch.equal(Unfold(3)(folded), rows)


def test_draws_are_those_of_each_network_alone():
    def draws(generator, count):
        return torch.randn(count, 2, 3, generator=generator), torch.rand(
            [count], generator=generator
        )

    with SeparateGenerators([torch.Generator().manual_seed(s) for s in (5, 6)], rows=8) as both:
        found = draws(both.shared, 8)
        apart = torch.randn(4, generator=torch.Generator().manual_seed(7))
    for i, seed in enumerate((5, 6)):
        for value, own in zip(found, draws(torch.Generator().manual_seed(seed), 4), strict=True):
            assert torch.equal(value[4 * i : 4 * i + 4], own)
    assert torch.equal(apart, torch.randn(4, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: torch.randn(2, 4, generator=generator),  # not one per image
        lambda generator: torch.randperm(4, generator=generator),
        lambda generator: torch.randn([], generator=generator),
    ],
)
def test_draws_that_cannot_be_divided_are_refused(draw):
    with (
        pytest.raises(UserError, match=r"torch.rand or torch.randn .*batch_cells"),
        SeparateGenerators([torch.Generator(), torch.Generator()], rows=4) as both,
    ):
        draw(both.shared)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", PENALTIES)
def test_together_is_one_by_one(name, architecture):
    """Up to rounding, which float64 keeps small enough for anything else to show."""
    for (model, result), (alone, own) in zip(
        together(name, torch.float64, architecture),
        one_by_one(name, torch.float64, architecture),
        strict=True,
    ):
        assert result.status == own.status == "finished"
        torch.testing.assert_close(parameters(model), parameters(alone), rtol=0, atol=TOLERANCE)
        for row, expected in zip(without_time(result.curve), without_time(own.curve), strict=True):
            assert row == pytest.approx(expected, abs=100 * TOLERANCE)


@pytest.mark.parametrize("name", ["none", "gradient", "hessian, softmax", "taylor", "cure"])
def test_in_float32_together_errs_as_one_by_one(name):
    """Both round in their own order, and neither is farther from the float64 result by much.

    The largest errors of the two differ by a factor that depends on where the roundings fall: with
    these five penalties, 0.7 to 1.2.  (What is drawn at random differs between the two precisions.)
    """
    exact = [parameters(model) for model, _ in one_by_one(name, torch.float64, "cnn")]

    def error(results):
        return max(
            (parameters(model) - other).abs().max()
            for (model, _), other in zip(results, exact, strict=True)
        )

    assert error(together(name, torch.float32)) <= 3 * error(one_by_one(name, torch.float32, "cnn"))


def test_each_cell_has_its_own_lam_and_seed():
    first, second, third = (parameters(m) for m, _ in together("hessian, softmax", torch.float64))
    assert (first - third).abs().max() > 1e-3
    assert (first - second).abs().max() > 1e-3


class Interrupted(Exception):
    pass


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, capsys):
    whole = together("hessian, random", torch.float32)
    options = {"checkpoint": tmp_path / "checkpoint.pt", "fingerprint": "a"}
    # Before training, the objective is looked at four times: of the stack, of each network alone.
    cls, calls = regularizers.InputHessianNorm, itertools.count(-4)
    original = cls.__call__

    def interrupted(self, *arguments):
        if next(calls) == 6:  # 4 steps an epoch: in the second
            raise Interrupted
        return original(self, *arguments)

    monkeypatch.setattr(cls, "__call__", interrupted)
    with pytest.raises(Interrupted):
        together("hessian, random", torch.float32, **options)
    resumed = together("hessian, random", torch.float32, **options)
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert next(calls) == 7 + 4 + 8  # only the interrupted epoch was repeated
    for (model, result), (other, expected) in zip(resumed, whole, strict=True):
        assert torch.equal(parameters(model), parameters(other))
        assert without_time(result.curve) == without_time(expected.curve)
    together("hessian, random", torch.float32, **options | {"fingerprint": "b"})
    assert "starting afresh" in capsys.readouterr().out


@pytest.mark.parametrize("which", [0, 1])
def test_a_cell_that_diverges_costs_the_others_nothing(monkeypatch, tmp_path, which):
    undisturbed = together("gradient", torch.float64)
    penalties, settings = cells("gradient")
    original, calls = regularizers.InputGradient.__call__, itertools.count(-4)  # see above

    def diverging(self, *arguments):
        objective = original(self, *arguments)
        if next(calls) < 4:  # the first epoch
            return objective
        diverges = torch.as_tensor(self.lam).float() == penalties[which]["lam"]
        factor = torch.where(diverges, torch.nan, 1.0)
        return objective._replace(penalty=objective.penalty * factor)

    monkeypatch.setattr(regularizers.InputGradient, "__call__", diverging)
    options = {"checkpoint": tmp_path / "checkpoint.pt", "fingerprint": "a"}
    results = together("gradient", torch.float64, **options)
    expected = [(1, "diverged") if i == which else (3, "finished") for i in range(3)]
    assert [(len(result.curve), result.status) for _, result in results] == expected
    for i in {0, 1, 2} - {which}:
        assert torch.equal(parameters(results[i][0]), parameters(undisturbed[i][0]))
    again = together("gradient", torch.float64, **options)  # trains nothing again
    assert next(calls) == 12 + 4
    for (model, result), (other, expected) in zip(results, again, strict=True):
        assert torch.equal(parameters(model), parameters(other))
        assert result == expected
    # What the cell keeps is its last finite epoch, as alone.
    monkeypatch.undo()
    monkeypatch.setattr(regularizers.InputGradient, "__call__", diverging)
    calls = itertools.count()
    model, result = train(
        lambda: network(),
        regularizers.build(**penalties[which]),
        data(),
        data(),
        settings[which],
        device=CPU,
    )
    assert result.status == "diverged"
    torch.testing.assert_close(
        parameters(results[which][0]), parameters(model), rtol=0, atol=TOLERANCE
    )


def test_cells_are_divided_where_a_penalty_needs_one_lam():
    def penalties(name):
        shared = PENALTIES[name][0]
        return [shared | {"lam": lam} for lam in (1.0, 2.0, 1.0)]

    assert divide(penalties("hessian, softmax")) == [[0, 1, 2]]
    assert divide(penalties("adversarial, l2")) == [[0, 2], [1]]
    mixed = [*penalties("gradient"), *penalties("hessian, random")]
    assert divide(mixed) == [[0, 1, 2], [3, 4, 5]]
    assert divide([*penalties("hessian, softmax"), *penalties("hessian, squared")]) == [
        [0, 1, 2],
        [3, 4, 5],
    ]
    assert divide([{"penalty": "unknown", "lam": lam} for lam in (1.0, 2.0)]) == [[0], [1]]


def decay(model, images, labels, generator):
    """A penalty of the parameters: the stack has those of all networks."""
    objective = regularizers.Unregularized()(model, images, labels, generator)
    squares = sum(parameter.square().sum() for parameter in model.parameters())
    return objective._replace(penalty=squares.expand(len(images)))


def spread(model, images, labels, generator):
    """A penalty of the batch: the stack has the images of all networks."""
    objective = regularizers.Unregularized()(model, images, labels, generator)
    return objective._replace(penalty=(objective.loss - objective.loss.mean()).square())


def scalar(model, images, labels, generator):
    objective = regularizers.Unregularized()(model, images, labels, generator)
    return objective._replace(penalty=objective.loss.mean())


@pytest.mark.parametrize("coupled", [decay, spread, scalar])
def test_a_penalty_that_couples_images_or_networks_is_refused(monkeypatch, coupled):
    monkeypatch.setitem(regularizers.REGULARIZERS, "coupled", lambda lam: coupled)
    with pytest.raises(UserError, match=r"'coupled': its penalty .* leave out `batch_cells`"):
        train_together(
            network,
            [{"penalty": "coupled", "lam": 1.0}] * 2,
            data(),
            data(),
            [TrainingSettings(EPOCHS, 16, LEARNING_RATE, seed) for seed in (0, 1)],
            device=CPU,
        )


def test_networks_that_would_not_stay_what_they_are_are_refused():
    def linear():
        return nn.Linear(4, 4)

    def stack(*parts):
        return pytest.raises(UserError, match="`batch_cells`"), parts

    shared = linear()
    frozen = nn.Sequential(linear().requires_grad_(False))
    for refused, parts in (
        stack(frozen, frozen),
        stack(nn.Sequential(shared, shared), nn.Sequential(linear(), linear())),
        stack(nn.Sequential(nn.Softplus(1)), nn.Sequential(nn.Softplus(2))),
        stack(linear(), linear()),
        stack(nn.Sequential(nn.utils.parametrizations.weight_norm(linear()))),
    ):
        with refused:
            StackedNetwork(parts)
