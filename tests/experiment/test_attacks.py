import copy
import math

import pytest
import torch
from pyautoattack import AutoAttack
from torch import nn
from torch.nn.utils import prune

from input_hessian.experiment import attacks
from input_hessian.experiment.attacks import (
    AttackError,
    AttackSettings,
    perturbation_norm,
    run_attack,
)
from input_hessian.experiment.config import DdnAttack, PgdAttack
from input_hessian.experiment.errors import UserError

FGSM = {norm: AttackSettings("fgsm", norm) for norm in ("linf", "l2")}
PGD = {norm: AttackSettings("pgd", norm, steps=40, restarts=1) for norm in ("linf", "l2")}
DUAL = {"linf": 1, "l2": 2}  # the norm of the weights that measures a perturbation of that norm


@pytest.fixture(scope="module")
def linear():
    """A linear two-class network and images far from the pixel bounds: radii in closed form."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval().requires_grad_(False)
    images = 0.5 + 0.1 * (torch.rand(60, 1, 4, 4) - 0.5)
    logits = model(images)
    model[1].bias[0] += (logits[:, 1] - logits[:, 0]).median()  # about half of each class
    labels = model(images).argmax(1)
    labels[:5] = 1 - labels[:5]  # five images are wrong from the start
    return model, images, labels


def radius(model, images, labels, norm):
    """``|margin| / ||w_1 - w_0||_dual``, 0 where the label is wrong already."""
    logits = model(images)
    margin = logits.gather(1, labels[:, None]).squeeze(1)
    margin = margin - logits.gather(1, 1 - labels[:, None]).squeeze(1)
    weights = model[1].weight[1] - model[1].weight[0]
    return margin.clamp_min(0) / torch.linalg.vector_norm(weights, ord=DUAL[norm])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("settings", [FGSM, PGD], ids=["fgsm", "pgd"])
def test_linear_network_breaks_at_its_closed_form_radius(linear, settings, norm):
    exact = radius(*linear, norm)
    epsilons = torch.linspace(0.1, 1.2, 8) * exact.max()
    record = run_attack(*linear, settings[norm], epsilons.tolist(), seed=0)
    for epsilon, robust in zip(epsilons, record.robust, strict=True):
        # Forty steps of eps/16 turn a random start to within a few degrees of the normal.
        clear = (epsilon / exact - 1).abs() > 0.04
        assert torch.equal(robust[clear], (exact > epsilon)[clear])
    assert not record.robust[-1].any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_record_is_monotone_and_its_examples_are_what_they_claim(linear, norm):
    model, images, labels = linear
    epsilons = [0.01, 0.03, 0.1]
    record = run_attack(model, images, labels, PGD[norm], epsilons, seed=0)
    assert (record.robust[1:] <= record.robust[:-1]).all()
    assert not record.robust[:, :5].any()
    assert (record.epsilon_found[:5] == 0).all()
    assert torch.equal(record.adversarial[:5], images[:5])
    for i, epsilon in enumerate(record.epsilon_found.tolist()):
        verdict = model(record.adversarial[i : i + 1]).argmax(1)
        assert (verdict == labels[i]) == math.isinf(epsilon)
        distance = perturbation_norm(images[i : i + 1], record.adversarial[i : i + 1], norm).item()
        assert distance <= (0 if math.isinf(epsilon) else epsilon + attacks.ROUNDING)
        if 0 < epsilon < math.inf:
            assert record.robust[:, i].tolist() == [e < epsilon for e in epsilons]


def test_perturbation_norm():
    images = torch.zeros(2, 1, 2, 2)
    moved = torch.tensor([[3.0, -4, 0, 0], [0, 0, 0, 2]]).reshape(2, 1, 2, 2)
    assert perturbation_norm(images, moved, "l2").tolist() == [5, 2]
    assert perturbation_norm(images, moved, "linf").tolist() == [4, 2]


def test_same_seed_same_record_and_global_random_state_stays(linear):
    state = torch.get_rng_state()
    first = run_attack(*linear, PGD["l2"], [0.02, 0.05], seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again = run_attack(*linear, PGD["l2"], [0.02, 0.05], seed=5)
    other = run_attack(*linear, PGD["l2"], [0.02, 0.05], seed=6)
    assert torch.equal(first.adversarial, again.adversarial)
    assert not torch.equal(first.adversarial, other.adversarial)


class FakeAttack:
    """Stands for a library; records how many images it is given, and answers as told."""

    def __init__(self, answer):
        self.answer, self.sizes = answer, []

    def __call__(self, model, images, labels, epsilon, seed):
        self.sizes.append(len(images))
        return self.answer(images, epsilon)


def use(monkeypatch, answer):
    fake = FakeAttack(answer)
    monkeypatch.setitem(attacks.ATTACKS, "pgd", lambda settings: fake)
    return fake


def test_only_what_stands_is_attacked_again(linear, monkeypatch):
    model, *_ = linear
    exact = radius(*linear, "l2")
    weights = (model[1].weight[1] - model[1].weight[0]).reshape(1, 1, 4, 4)
    direction = weights / weights.norm()

    def shortest(batch, epsilon):
        towards = 1 - 2 * model(batch).argmax(1).float()
        return batch + epsilon * direction * towards[:, None, None, None]

    fake = use(monkeypatch, shortest)
    between = exact.sort().values[30:32].mean().item()  # clear of every radius
    epsilons = [between, 1.1 * exact.max().item(), 2 * exact.max().item()]
    run_attack(
        *linear, AttackSettings("pgd", "l2", 1, restarts=2), epsilons, seed=0, batch_size=500
    )
    left = int((exact > epsilons[0]).sum())
    # 55 correct images; those left after the first epsilon are tried in its restart and once at the
    # second; at the third nothing stands.
    assert fake.sizes == [55, left, left]


def test_an_attack_is_not_believed(linear, monkeypatch):
    use(monkeypatch, lambda images, epsilon: images.clone())
    record = run_attack(*linear, PGD["l2"], [0.1], seed=0)
    assert record.robust.sum() == 55  # "success" without a wrong prediction does not count


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda images, epsilon: images + 1.01 * epsilon, "returned a perturbation of 0.101"),
        (lambda images, epsilon: images.clamp_max(-0.01), "outside"),
        (lambda images, epsilon: images * float("nan"), "returned"),
    ],
    ids=["ball", "pixels", "nan"],
)
def test_images_outside_ball_or_pixel_range_are_an_error(linear, monkeypatch, answer, message):
    use(monkeypatch, answer)
    epsilon = 0.1 if message.startswith("returned a") else 1.0
    with pytest.raises(AttackError, match=message):
        run_attack(*linear, PGD["linf"], [epsilon], seed=0)


@pytest.mark.parametrize(
    "epsilons",
    [[], [0.0, 0.1], [0.2, 0.1], [0.1, 0.1], [-0.1], [math.nan], [0.1, math.inf], ["far"], 0.1],
)
def test_epsilons_must_increase_from_above_zero(linear, epsilons):
    with pytest.raises(ValueError, match="increasing numbers above 0, got"):
        run_attack(*linear, FGSM["l2"], epsilons, seed=0)


def test_unknown_attack_or_norm():
    for attack, norm in (("cw", "l2"), ("fgsm", "l1"), ("ddn", "linf")):
        with pytest.raises(ValueError, match=r"expected one of fgsm, pgd, .* with norm linf or l2"):
            AttackSettings(attack, norm)


@pytest.fixture(scope="module")
def linear10():
    """A linear ten-class network and images far from the pixel bounds: radii in closed form."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval().requires_grad_(False)
    # Peaked, because DDN follows the cross-entropy, which mixes boundaries in a soft softmax.
    model[1].weight.mul_(100)
    model[1].bias[:] = -0.5 * model[1].weight.sum(1)
    labels = torch.arange(50) % 10
    towards = nn.functional.normalize(model[1].weight[labels]) * torch.linspace(0.2, 1, 50)[:, None]
    images = 0.5 + towards.view(50, 1, 8, 8) + 0.02 * torch.randn(50, 1, 8, 8)
    labels[:3] = (labels[:3] + 1) % 10  # three images are wrong from the start
    return model, images, labels


def nearest_boundary(model, images, labels, norm):
    """``min_t (z_y - z_t) / ||w_y - w_t||_dual``, 0 where the label is wrong already."""
    logits, weights = model(images), model[1].weight
    margins = logits.gather(1, labels[:, None]) - logits
    lengths = torch.linalg.vector_norm(weights[labels][:, None] - weights, ord=DUAL[norm], dim=2)
    ratios = torch.where(lengths > 0, margins / lengths.clamp_min(1e-12), math.inf)
    return ratios.amin(1).clamp_min(0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["apgd-t", "fab-t"])
def test_targeted_autoattack_finds_the_nearest_of_ten_boundaries(linear10, attack, norm):
    exact = nearest_boundary(*linear10, norm)
    epsilons = exact.max() * torch.tensor([0.4, 1.1])
    record = run_attack(*linear10, AttackSettings(attack, norm), epsilons.tolist(), seed=0)
    for epsilon, robust in zip(epsilons, record.robust, strict=True):
        clear = (epsilon / exact - 1).abs() > 0.02
        assert torch.equal(robust[clear], (exact > epsilon)[clear])
    assert not record.robust[-1].any()


@pytest.mark.parametrize(
    ("attack", "norm"), [("apgd-ce", "linf"), ("apgd-ce", "l2"), ("square", "linf")]
)
def test_untargeted_autoattack_never_beats_the_closed_form(linear10, attack, norm):
    exact = nearest_boundary(*linear10, norm)
    epsilons = exact.max() * torch.tensor([0.5, 2])
    settings = AttackSettings(attack, norm, queries=1000)
    record = run_attack(*linear10, settings, epsilons.tolist(), seed=0)
    assert record.robust[0][exact > epsilons[0] + attacks.ROUNDING].all()
    assert record.robust[0].sum() < 47
    assert record.robust[1].sum() <= 10  # twice the largest radius: enough for most


def test_ddn_finds_the_smallest_perturbation(linear10):
    images = linear10[1]
    exact = nearest_boundary(*linear10, "l2").double()
    epsilons = (exact.max() * torch.tensor([0.3, 0.6])).tolist()
    record = run_attack(*linear10, AttackSettings("ddn", "l2", steps=300), epsilons, seed=0)
    assert (record.epsilon_found[:3] == 0).all()
    found = record.epsilon_found[3:]
    assert (found >= exact[3:] * (1 - 1e-4)).all()
    ratio = found / exact[3:]
    assert ratio.median() < 1.01
    assert ratio.max() < 1.1  # where two boundaries are nearly as near, it may follow the farther
    size = perturbation_norm(images, record.adversarial, "l2").double()
    assert torch.allclose(size, record.epsilon_found)
    for epsilon, robust in zip(epsilons, record.robust, strict=True):
        assert torch.equal(robust, record.epsilon_found > epsilon)


def test_what_earlier_attacks_broke_is_neither_attacked_nor_robust(linear, monkeypatch):
    fake = use(monkeypatch, lambda images, epsilon: images.clone())  # breaks nothing
    broken_at = torch.full((60,), math.inf, dtype=torch.float64)
    broken_at[10:20], broken_at[20:40] = 0.1, 0.2
    record = run_attack(*linear, PGD["l2"], [0.1, 0.2], seed=0, broken_at=broken_at)
    assert fake.sizes == [45, 25]
    assert record.robust.sum(1).tolist() == [45, 25]
    assert torch.isinf(record.epsilon_found[5:]).all()  # what others found is not this attack's


def test_an_expensive_attack_starts_at_the_largest_ball_and_skips_what_stands_there(
    linear, monkeypatch
):
    """A stand-in that breaks, within its ball, exactly what the closed form allows."""
    model = linear[0]
    exact = radius(*linear, "l2")
    weights = (model[1].weight[1] - model[1].weight[0]).reshape(1, 1, 4, 4)
    direction = weights / weights.norm()
    tried = []

    def shortest(batch, epsilon):
        tried.append((epsilon, len(batch)))
        towards = 1 - 2 * model(batch).argmax(1).float()
        return batch + epsilon * direction * towards[:, None, None, None]

    fake = FakeAttack(shortest)
    monkeypatch.setitem(attacks.ATTACKS, "apgd-t", lambda settings: fake)
    ordered = exact.sort().values
    low, middle, high = (ordered[i : i + 2].mean().item() for i in (15, 30, 45))
    # an earlier attack broke the five images next to break at the middle radius
    earlier = torch.full((60,), math.inf, dtype=torch.float64)
    earlier[exact.argsort()[26:31]] = middle
    record = run_attack(
        *linear, AttackSettings("apgd-t", "l2"), [low, middle, high], seed=0, broken_at=earlier
    )
    stands = [int((exact > epsilon).sum()) for epsilon in (low, middle, high)]
    assert stands == [44, 29, 14]
    # high: all correct ones but the five; middle: what broke at high, but not the five;
    # low: what broke at the middle radius, the five among it.
    assert tried == [(high, 50), (middle, 50 - 14), (low, 55 - 29)]
    assert record.robust.sum(1).tolist() == stands
    assert torch.equal(record.robust, torch.stack([exact > e for e in (low, middle, high)]))


def test_radii_of_earlier_attacks_are_exact(linear):
    """In float32, 0.15 is larger than 0.15, and a broken image would count as robust."""
    with pytest.raises(ValueError, match=r"broken_at: expected float64 .* got torch\.float32"):
        run_attack(*linear, PGD["l2"], [0.15], seed=0, broken_at=torch.full((60,), 0.15))


@pytest.mark.parametrize("attack", ["apgd-ce", "fab-t", "square"])
def test_the_other_attacks_of_autoattack_need_two_classes(linear, attack):
    model, images, labels = linear
    largest = nearest_boundary(*linear, "linf").max().item()
    settings = AttackSettings(attack, "linf", queries=500)
    record = run_attack(model, images, labels, settings, [largest], seed=0)
    assert record.robust.double().mean() < 0.5


def test_the_targeted_loss_needs_four_classes(linear):
    with pytest.raises(ValueError, match="expected at least 4 classes, got 2"):
        run_attack(*linear, AttackSettings("apgd-t", "l2"), [0.1], seed=0)


@pytest.mark.parametrize("attack", ["apgd-ce", "apgd-t", "fab-t", "ddn"])
def test_one_image_is_attacked_as_in_a_batch(linear10, attack):
    model, images, labels = linear10
    exact = nearest_boundary(*linear10, "l2")
    one = exact.argmax().reshape(1)
    settings, epsilon = AttackSettings(attack, "l2", steps=50), 4 * exact.max().item()
    record = run_attack(model, images[one], labels[one], settings, [epsilon], seed=0)
    assert record.robust.tolist() == [[False]]


class Waves(nn.Module):
    """A loss with many maxima, most of which break no image."""

    def forward(self, images):
        score = torch.sin(40 * images.flatten(1)).sum(1, keepdim=True)
        return torch.cat([torch.full_like(score, 2.5), score, 0 * score - 1, 0 * score - 2], 1)


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.parametrize("attack", ["apgd-ce", "apgd-t"])
def test_restarts_find_what_one_start_misses(attack):
    images = torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(60, dtype=torch.long)
    one, five = (
        run_attack(
            Waves(), images, labels, AttackSettings(attack, "linf", restarts=n), [0.1], seed=0
        )
        for n in (1, 5)
    )
    assert five.robust.sum() < one.robust.sum()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_four_attacks_are_the_reference_autoattack(norm):
    """Same verdict on every image as the authors' own driver of the standard version."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Softplus(), nn.Linear(32, 10))
    model = model.eval().requires_grad_(False)
    images = torch.rand(40, 1, 8, 8)
    labels = model(images).argmax(1)
    epsilon = {"linf": 0.02, "l2": 0.15}[norm]
    reference = AutoAttack(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilon, seed=3)
    examples, _ = reference.run_standard_evaluation(images, labels, batch_size=500)
    expected = model(examples).argmax(1) == labels
    assert 4 < expected.sum() < 36
    broken_at = None
    for attack in ("apgd-ce", "apgd-t", "fab-t", "square"):
        settings = AttackSettings(attack, norm)
        record = run_attack(model, images, labels, settings, [epsilon], seed=3, broken_at=broken_at)
        radius = torch.tensor(epsilon, dtype=torch.float64)
        broken_at = torch.where(record.robust[0], math.inf, radius)
    assert torch.equal(record.robust[0], expected)


EVERY_ATTACK = [(attack, norm) for attack in attacks.ATTACKS for norm in ("linf", "l2")]
EVERY_ATTACK.remove(("ddn", "linf"))


@pytest.mark.parametrize(("attack", "norm"), EVERY_ATTACK)
def test_float64_networks_get_the_same_verdicts(linear10, attack, norm, monkeypatch):
    monkeypatch.setattr(attacks, "_targets", lambda classes: 1)  # a small budget is enough here
    model, images, labels = linear10
    settings = AttackSettings(attack, norm, steps=20, queries=50)
    epsilons = [nearest_boundary(*linear10, norm).max().item()]
    chosen = torch.arange(0, 50, 10)
    single = run_attack(model, images[chosen], labels[chosen], settings, epsilons, seed=0)
    double = run_attack(
        copy.deepcopy(model).double(), images[chosen].double(), labels[chosen], settings, epsilons,
        seed=0,
    )  # fmt: skip
    assert double.adversarial.dtype == torch.float64
    assert torch.equal(double.robust, single.robust)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "ddn", "apgd-ce", "fab-t"])
def test_the_callers_gradient_mode_and_gradients_do_not_matter(linear10, attack):
    model, images, labels = linear10
    settings = AttackSettings(attack, "l2", steps=5)
    expected = run_attack(model, images[:9], labels[:9], settings, [0.5], seed=0)
    trainable = copy.deepcopy(model).requires_grad_()
    with torch.no_grad():
        found = [run_attack(trainable, images[:9], labels[:9], settings, [0.5], seed=0)]
    with torch.inference_mode():
        batch = images[:9] + 0, labels[:9] + 0, settings, [0.5]  # inference tensors
        found += [run_attack(net, *batch, seed=0) for net in (model, copy.deepcopy(model))]
    for record in found:
        assert torch.equal(record.adversarial, expected.adversarial)
        assert not record.adversarial.is_inference()
    assert all(parameter.grad is None for parameter in trainable.parameters())
    assert all(parameter.requires_grad for parameter in trainable.parameters())


class NanWhereBright(nn.Module):
    def forward(self, images):
        logits = images.flatten(1)[:, :4]
        bright = images.flatten(1).mean(1, keepdim=True) > 0.5
        return torch.where(bright, torch.nan, logits)


def test_an_image_without_finite_logits_is_misclassified():
    images = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.9)])
    labels = torch.tensor([0, 0])  # what argmax says of NaN, too
    for attack, norm in (("pgd", "linf"), ("ddn", "l2")):
        record = run_attack(
            NanWhereBright(), images, labels, AttackSettings(attack, norm), [1e-3], seed=0
        )
        assert not record.robust[:, 1].any()
        assert record.epsilon_found[1] == 0
        assert torch.equal(record.adversarial[1], images[1])


@pytest.mark.parametrize(("attack", "norm"), EVERY_ATTACK)
def test_no_images_no_verdicts(linear10, attack, norm):
    model, images, labels = linear10
    record = run_attack(
        model, images[:0], labels[:0], AttackSettings(attack, norm), [0.1, 0.2], seed=0
    )
    assert record.robust.shape == (2, 0)
    assert record.adversarial.shape == images[:0].shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net, x, y: (net, 255 * x, y), r"images: expected pixels in \[0, 1\].*; rescale"),
        (lambda net, x, y: (net, x * math.nan, y), r"images: expected pixels in \[0, 1\].*nan"),
        (lambda net, x, y: (net, x.double(), y), "expected the dtype of the network.*float64 for"),
        (
            lambda net, x, y: (net.half(), x.half(), y),
            "expected float32 or float64.*got torch.float16",
        ),
        (
            lambda net, x, y: (net, (255 * x).byte(), y),
            "images: expected float32 or float64.*uint8",
        ),
        (lambda net, x, y: (net, x, y.int()), "labels: expected one class index.*int32"),
        (lambda net, x, y: (net, x, y[:3]), r"labels: expected one class index.*shape \(3,\)"),
        (lambda net, x, y: (net, x, y + 1), "labels: expected 0 to 9, got values from 1 to 10"),
    ],
    ids=["255", "nan", "mixed", "half", "bytes", "int32", "short", "range"],
)
def test_what_is_wrong_with_images_or_labels_is_said_before_any_attack(
    linear10, change, message, monkeypatch
):
    fake = use(monkeypatch, lambda images, epsilon: images)
    model, images, _ = linear10
    arguments = change(copy.deepcopy(model), images, torch.arange(50) % 10)
    with pytest.raises(ValueError, match=message):
        run_attack(*arguments, PGD["linf"], [0.1], seed=0)
    assert fake.sizes == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"restarts": 1.5}, "restarts: expected a whole number of at least 1, got 1.5"),
    ],
)
def test_budgets_are_whole_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        AttackSettings("pgd", "l2", **options)


def test_steps_are_by_default_those_of_a_configuration():
    for attack, kind in (("pgd", PgdAttack), ("ddn", DdnAttack)):
        assert AttackSettings(attack, "l2").steps == kind(attack=attack, norm="l2").steps > 1


@pytest.mark.parametrize(("norm", "radius", "most"), [("linf", 8, "1"), ("l2", 12, "4")])
def test_radii_of_grey_levels_are_refused(linear, norm, radius, most):
    model, images, labels = linear
    with pytest.raises(
        ValueError, match=f"epsilons: got {radius}, expected at most {most}, .* 255"
    ):
        run_attack(model, images, labels, FGSM[norm], [0.1, radius], seed=0)


def test_square_says_which_images_it_needs(linear10):
    model, images, labels = linear10
    for shape, message in (((50, 64), "N, C, H, W"), ((50, 1, 4, 16), "at least 5")):
        with pytest.raises(ValueError, match=message):
            run_attack(
                model, images.reshape(shape), labels, AttackSettings("square", "l2"), [0.1], seed=0
            )


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: nn.utils.weight_norm(layer),
        lambda layer: nn.utils.spectral_norm(layer).eval(),
        lambda layer: prune.l1_unstructured(layer, "weight", 10),
        lambda layer: torch.jit.script(layer),
    ],
    ids=["weight norm", "spectral norm", "pruned", "TorchScript"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_networks_whose_weights_are_computed_are_attacked_as_they_are(linear10, change):
    _, images, labels = linear10
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), change(nn.Linear(64, 10)))
    logits = model(images)  # with a graph, as after a training step
    record = run_attack(model, images, labels, PGD["l2"], [1e-6], seed=0)
    assert torch.equal(record.robust[0], logits.argmax(1) == labels)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Centred(nn.Module):
    """A frequent mistake: normalises the images of whoever calls."""

    def forward(self, images):
        return images.sub_(0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda net: nn.Sequential(Centred(), net),
            "expected the images to be left .* changed in place; look",
        ),
        (lambda net: nn.Sequential(net, nn.Softmax(1)), "expected logits, got probabilities"),
        (lambda net: nn.LSTM(8, 10, batch_first=True), "expected logits .* got a tuple; wrap"),
    ],
    ids=["in place", "softmax", "tuple"],
)
def test_what_would_spoil_an_evaluation_is_refused(linear10, wrong, message):
    model, images, labels = linear10
    images = images[:, 0] if "tuple" in message else images.clone()
    before = images.clone()
    with pytest.raises(UserError, match=f"^model: {message}"):
        run_attack(wrong(model), images, labels, PGD["l2"], [0.1], seed=0)
    assert torch.equal(images, before)
