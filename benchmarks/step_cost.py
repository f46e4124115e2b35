"""Time one training step with every estimator of the Hessian norm, ours and the published ones.

One step of every variant in turn, in random order, each on its own copy of the network: what slows
the machine down for a while slows all of them.  A ratio is taken to the plain step of the same
round.  Only torch and this repository's library are needed; the peers are written here from their
published algorithms, as fast as we could, and return the same: loss and norm per image.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from equal_time import SETTINGS, Setting
from readme import write_table
from torch import Tensor, nn

from input_hessian.estimators import operator_norm
from input_hessian.experiment import models
from input_hessian.experiment.devices import resolve_device
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.plugins import load_plugin
from input_hessian.hessian import InputHessian
from input_hessian.layerwise import LayerwiseHessian

HERE = Path(__file__).parent
WIDTHS = {"mlp": 256, "cnn": 16}
SHAPES = [(1, 28, 28), (3, 32, 32)]
BATCHES = [64, 256, 1024]
MAIN = ((1, 28, 28), 256)  # shape and batch of the figure, the table and the memory
EXPLICIT_BATCH = 8
LAM, TRAINED_STEPS = 1.0, 200
LEAST_ROUNDS, MOST_ROUNDS = 7, 61

Objective = tuple[Tensor, Tensor | None]  # loss and norm, [B] each; no norm for the plain step


class Variant(NamedTuple):
    """One way to compute ``loss`` and ``norm`` of a batch.

    Attributes:
        family: variants of one family differ by their budget alone.
        hvps: Hessian-vector products per image, or None where the word does not apply.
        objective: ``(model, images, labels, generator) -> (loss, norm)``, both ``[B]`` and
            differentiable in the parameters; norm is None for the plain step.
        estimates_hessian: whether ``norm`` estimates ``||H||``.
    """

    family: str
    hvps: int | None
    objective: Callable[..., Objective]
    estimates_hessian: bool = True

    @property
    def name(self) -> str:
        """Return family and budget."""
        return self.family if self.hvps is None else f"{self.family}, {self.hvps}"


# ---- ours ----------------------------------------------------------------------------------------


def plain(model, images, labels, generator) -> Objective:
    """Cross-entropy alone."""
    return F.cross_entropy(model(images), labels, reduction="none"), None


def ours(passes: type, method: str, hvps: int, start="gradient") -> Callable[..., Objective]:
    """``||H||`` through the library's public functions."""

    def objective(model, images, labels, generator):
        options = {"row_space": True} if passes is LayerwiseHessian else {}
        hessian = passes(model, images, labels, **options)
        estimate = operator_norm(hessian, method=method, hvps=hvps, start=start, create_graph=True)
        return hessian.loss, estimate.norm

    return objective


def trained(setting: Setting) -> Callable[..., Objective]:
    """A setting of ``equal_time.py``: its penalty, as the library's users call it."""
    lam = setting.lams["mnist"][0]
    penalty = setting.penalty(lam=lam, **setting.options)

    def objective(model, images, labels, generator):
        loss, weighted, _ = penalty(model, images, labels, generator)
        return loss, (weighted / lam if lam else weighted)

    return objective


# ---- peers: double backpropagation ---------------------------------------------------------------


def _loss_and_gradient(model, images, labels) -> tuple[Tensor, Tensor, Tensor]:
    x = images.detach().requires_grad_()
    loss = F.cross_entropy(model(x), labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    return x, loss, gradient


def _hvp(gradient: Tensor, x: Tensor, vector: Tensor, create_graph: bool = False) -> Tensor:
    (product,) = torch.autograd.grad(
        gradient, x, vector, retain_graph=True, create_graph=create_graph
    )
    return product


def _random_unit(x: Tensor, generator) -> Tensor:
    return _unit(torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator))


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.detach().flatten(1), dim=1).view_as(vectors)


def _length(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors.flatten(1), dim=1)


def power_random(steps: int) -> Callable[..., Objective]:
    """Power iteration from a random start, reverse over reverse; the last product has a graph.

    Sources: Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Computation 6, 1994;
    as a curvature penalty, Srinivas et al., *Efficient training of low-curvature neural networks*,
    NeurIPS 2022.
    """

    def objective(model, images, labels, generator):
        x, loss, gradient = _loss_and_gradient(model, images, labels)
        vector = _random_unit(x, generator)
        for _ in range(steps - 1):
            vector = _unit(_hvp(gradient, x, vector))
        return loss, _length(_hvp(gradient, x, vector, create_graph=True))

    return objective


def lanczos_random(hvps: int) -> Callable[..., Objective]:
    """Batched Lanczos from a random start; ``||H v||`` of the Ritz vector ``v`` largest in size.

    ``hvps - 1`` products span the space, the last one has a graph.  With full
    reorthogonalisation, and ``||H v||`` rather than the smaller Ritz value.
    Source: Cui, Yan, Liu & Lu, *Generalizing and improving Jacobian and Hessian regularization*,
    arXiv 2212.00311, 2022; what its abstract leaves open is chosen here.
    """

    def objective(model, images, labels, generator):
        x, loss, gradient = _loss_and_gradient(model, images, labels)
        basis = [_random_unit(x, generator).flatten(1)]
        diagonal, beside = [], []
        for _ in range(hvps - 1):
            product = _hvp(gradient, x, basis[-1].view_as(x)).flatten(1)
            diagonal.append((product * basis[-1]).sum(1))
            for q in basis:
                product = product - q * (q * product).sum(1, keepdim=True)
            length = _length(product)
            beside.append(length)
            basis.append(product / length.clamp_min(torch.finfo(x.dtype).tiny)[:, None])
        tridiagonal = torch.diag_embed(torch.stack(diagonal, 1))
        if len(beside) > 1:
            off = torch.diag_embed(torch.stack(beside[:-1], 1), offset=1)
            tridiagonal = tridiagonal + off + off.mT
        values, vectors = torch.linalg.eigh(tridiagonal)
        top = values.abs().argmax(1)
        weights = vectors[torch.arange(len(x), device=x.device), :, top]
        ritz = sum(w[:, None] * q for w, q in zip(weights.unbind(1), basis, strict=False))
        return loss, _length(_hvp(gradient, x, _unit(ritz.view_as(x)), create_graph=True))

    return objective


def ascent_random(steps: int, step_size: float = 1.0) -> Callable[..., Objective]:
    """Gradient ascent on ``||H v||`` from a random start, the reproduced paper's estimator.

    ``d||H v||/dv = H H v / ||H v||`` as two products; step size and number of steps are ours.
    Source: Mustafa, Vandermeulen & Kloft, *Input Hessian regularization of neural networks*,
    arXiv 2009.06571, 2020.
    """

    def objective(model, images, labels, generator):
        x, loss, gradient = _loss_and_gradient(model, images, labels)
        vector = _random_unit(x, generator)
        for _ in range(steps):
            ascent = _hvp(gradient, x, _unit(_hvp(gradient, x, vector)))
            vector = _unit(vector + step_size * ascent)
        return loss, _length(_hvp(gradient, x, vector, create_graph=True))

    return objective


def finite_difference(step: float, sign: bool) -> Callable[..., Objective]:
    """``||g(x + h z) - g(x)|| / h``; ``z`` along the sign of the gradient or the gradient itself.

    The gradient at ``x`` is computed once, for the direction and for the difference (the released
    code computes it twice).
    Source: Moosavi-Dezfooli, Fawzi, Uesato & Frossard, *Robustness via curvature regularization,
    and vice versa* (CURE), CVPR 2019: the sign, ``h = 1.5``.
    """

    def objective(model, images, labels, generator):
        x, loss, gradient = _loss_and_gradient(model, images, labels)
        direction = _unit(gradient.sign() if sign else gradient)
        _, _, moved = _loss_and_gradient(model, x + step * direction, labels)
        return loss, _length(moved - gradient) / step

    return objective


# ---- peers: torch.func ---------------------------------------------------------------------------


def _gradient_direction(model, images, labels) -> Tensor:
    x = images.detach().requires_grad_()
    loss = F.cross_entropy(model(x), labels, reduction="sum")
    return _unit(torch.autograd.grad(loss, x)[0])


def forward_over_reverse(model, images, labels, generator) -> Objective:
    """``||H v||`` along the gradient, as ``jvp`` of ``grad``, torch.func's recommended product.

    Source: PyTorch documentation, *Jacobians, Hessians, hvp, vhp, and more: composing function
    transforms*.
    """
    direction = _gradient_direction(model, images, labels)

    def loss_of(x):
        loss = F.cross_entropy(model(x), labels, reduction="none")
        return loss.sum(), loss

    gradient = torch.func.grad(loss_of, has_aux=True)
    (_, loss), (product, _) = torch.func.jvp(gradient, (images,), (direction,))
    return loss, _length(product)


def nested_forward(model, images, labels, generator) -> Objective:
    """``|v'H v|`` along the gradient, as ``jvp`` of ``jvp``: Taylor mode of order two, nested.

    Source: Griewank & Walther, *Evaluating Derivatives*, 2nd ed., SIAM 2008, chapter 13.
    """
    direction = _gradient_direction(model, images, labels)

    def loss_of(x):
        return F.cross_entropy(model(x), labels, reduction="none")

    def slope(x):
        return torch.func.jvp(loss_of, (x,), (direction,))

    (loss, _), (_, curvature) = torch.func.jvp(slope, (images,), (direction,))
    return loss, curvature.abs()


def explicit(model, images, labels, generator) -> Objective:
    """The whole Hessian and its eigenvectors; one product with a graph on the top one.

    Differentiating through the whole Hessian instead would give the same gradient for more.
    Source: ``torch.func.hessian``, PyTorch documentation.
    """

    def loss_of(image, label):
        return F.cross_entropy(model(image[None]), label[None])

    size = images[0].numel()
    with torch.no_grad():
        matrices = torch.func.vmap(torch.func.hessian(loss_of))(images, labels)
        values, vectors = torch.linalg.eigh(matrices.reshape(len(images), size, size))
        top = values.abs().argmax(1)
        vector = vectors[torch.arange(len(images), device=images.device), :, top]
    x, loss, gradient = _loss_and_gradient(model, images, labels)
    return loss, _length(_hvp(gradient, x, vector.view_as(x), create_graph=True))


VARIANTS = [
    Variant("plain", None, plain, False),
    *(Variant("ours: power from g", k, ours(LayerwiseHessian, "power", k)) for k in (1, 2, 3)),
    *(
        Variant("ours: power from softmax start", k, ours(LayerwiseHessian, "power", k, "softmax"))
        for k in (1, 2, 3)
    ),
    Variant("ours: Lanczos from g", 4, ours(LayerwiseHessian, "lanczos", 4)),
    *(Variant(s.name, None, trained(s), False) for s in SETTINGS if s.name != "plain"),
    *(
        Variant(
            "ours, fallback: power from g by double backprop", k, ours(InputHessian, "power", k)
        )
        for k in (1, 2)
    ),
    *(Variant("power, random start", k, power_random(k)) for k in (2, 4, 8, 16)),
    *(Variant("Lanczos, random start", k, lanczos_random(k)) for k in (4, 8)),
    *(Variant("ascent, random start", 2 * k + 1, ascent_random(k)) for k in (1, 5)),
    Variant("CURE (h 1.5, sign of g)", None, finite_difference(1.5, sign=True)),
    Variant("finite difference along g (h 0.01)", None, finite_difference(0.01, sign=False)),
    Variant("torch.func jvp of grad along g", 1, forward_over_reverse),
    Variant("torch.func jvp of jvp along g", None, nested_forward),
]
EXPLICIT = Variant("explicit Hessian, eigh", None, explicit)
BY_NAME = {variant.name: variant for variant in [*VARIANTS, EXPLICIT]}
PLAIN = VARIANTS[0].name
CORE = {  # measured at every size; of the others, the slowest are skipped where time is short
    PLAIN,
    "ours: power from g, 1",
    "ours: power from g, 2",
    "ours: power from softmax start, 1",
    "ours: power from softmax start, 2",
    "ours, fallback: power from g by double backprop, 1",
    "power, random start, 4",
    "CURE (h 1.5, sign of g)",
    EXPLICIT.name,
}


# ---- measuring -----------------------------------------------------------------------------------


def build_model(name: str, shape: tuple[int, int, int], device: torch.device) -> nn.Sequential:
    """Return the network of a panel, freshly initialised under a fixed seed."""
    torch.manual_seed(0)
    return models.build(
        architecture=name,
        width=WIDTHS[name],
        activation="softplus",
        beta=10.0,
        image_shape=shape,
        classes=10,
    ).to(device)


def random_batch(shape, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return uniform noise with labels: the time of a step does not depend on the values."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, *shape, generator=generator)
    labels = torch.randint(10, (batch,), generator=generator)
    return images.to(device), labels.to(device)


class Step:
    """A training step of one variant, on its own copy of the network."""

    def __init__(self, variant: Variant, model_name, shape, device, learning_rate=1e-5):
        self.variant = variant
        self.model = build_model(model_name, shape, device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate)
        self.generator = torch.Generator(device).manual_seed(0)

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Take the step."""
        loss, norm = self.variant.objective(self.model, images, labels, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        (loss if norm is None else loss + LAM * norm).mean().backward()
        self.optimizer.step()

    def seconds(self, images: Tensor, labels: Tensor) -> float:
        """Take the step and return how long it took."""
        _synchronize(images.device)
        began = time.perf_counter()
        self(images, labels)
        _synchronize(images.device)
        return time.perf_counter() - began


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure_cell(variants, model_name, shape, batch, device, budget, expected, least_rounds):
    """Time all variants, interleaved, within ``budget`` seconds.

    Args:
        variants: the plain step and what is compared with it.
        model_name: a key of ``WIDTHS``.
        shape: image shape.
        batch: images per step.
        device: where to run.
        budget: seconds for the rounds; the slowest variants outside ``CORE`` are skipped so that
            the least rounds fit.
        expected: seconds per image of each variant name, from a smaller batch; may be empty.
        least_rounds: of every variant.

    Returns:
        One row per variant; the skipped ones say why.
    """
    images, labels = random_batch(shape, batch, device)
    skipped = {}

    def skip_slowest(seconds: dict[str, float]) -> None:
        while least_rounds * sum(seconds.values()) > budget and seconds.keys() - CORE:
            slowest = max(seconds.keys() - CORE, key=seconds.get)
            skipped[slowest] = seconds.pop(slowest)

    predicted = {v.name: expected.get(v.name, 0.0) * batch for v in variants}
    skip_slowest(predicted)
    steps = {name: Step(BY_NAME[name], model_name, shape, device) for name in predicted}
    seconds = {name: step.seconds(images, labels) for name, step in steps.items()}
    if sum(seconds.values()) < budget / 20 or device.type == "cuda":  # the first step is slower
        seconds = {name: step.seconds(images, labels) for name, step in steps.items()}
    skip_slowest(seconds)
    rounds = int(budget / sum(seconds.values()))
    rounds = min(max(rounds, least_rounds), MOST_ROUNDS)

    order, shuffle = list(seconds), random.Random(0)
    times = {name: [] for name in order}
    for _ in range(rounds):
        shuffle.shuffle(order)
        for name in order:
            times[name].append(steps[name].seconds(images, labels))

    rows = []
    for variant in variants:
        row = {
            "model": model_name,
            "width": WIDTHS[model_name],
            "shape": "x".join(map(str, shape)),
            "batch": batch,
            "variant": variant.name,
            "family": variant.family,
            "hvps": variant.hvps,
        }
        if variant.name in times:
            pairs = zip(times[variant.name], times[PLAIN], strict=True)
            ratios = [mine / unit for mine, unit in pairs]
            quartiles = statistics.quantiles(ratios, n=4, method="inclusive")
            row |= dict(zip(("q25", "ratio", "q75"), quartiles, strict=True))
            row |= {"ms": 1000 * statistics.median(times[variant.name]), "rounds": rounds}
            row["plain_ms"] = 1000 * statistics.median(times[PLAIN])
        else:
            row["note"] = (
                f"skipped: a step takes about {skipped[variant.name]:.1f} s, {least_rounds} rounds "
                "of all variants would exceed the time set for this size"
            )
        rows.append(row)
    return rows


def peak_memory(variant_name, model_name, shape, batch, device_name, threads, connection) -> None:
    """In a fresh process: send the peak memory of a step above what was held before it, in MiB.

    Two warm-up steps on two images come first, so that what libraries load once does not count.
    """
    torch.set_num_threads(threads)
    device = torch.device(device_name)
    step = Step(BY_NAME[variant_name], model_name, shape, device)
    images, labels = random_batch(shape, batch, device)
    for _ in range(2):
        step(images[:2], labels[:2])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(images, labels)
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    else:
        before = _resident(reset=True)
        step(images, labels)
        peak = _resident(reset=False) - before
    connection.send(peak)


def _resident(reset: bool) -> float:
    """Return the largest resident size so far in MiB, which Linux can set back to the present one.

    Elsewhere ``ru_maxrss``; on Linux a child process would inherit its parent's.
    """
    if sys.platform == "linux":
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in status if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource  # not on Windows

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure_memory(names, model_name, shape, batch, device, threads) -> dict[str, float]:
    """Return the peak memory of each variant, each in a process of its own."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["torch", "torch._dynamo"])  # what takes seconds
    found = {}
    for name in names:
        receiver, sender = context.Pipe(duplex=False)
        arguments = (name, model_name, shape, batch, str(device), threads, sender)
        process = context.Process(target=peak_memory, args=arguments)
        process.start()
        sender.close()
        try:
            found[name] = receiver.recv()
        except EOFError:
            print(f"{name}: no memory figure, the process ended early", flush=True)
        process.join()
    return found


# ---- how much of the norm is found ---------------------------------------------------------------


def real_images(name: str, folder: Path, count: int) -> tuple[str, Tensor, Tensor]:
    """Return a name, images ``[count, 1, 28, 28]`` in [0, 1] and labels.

    Training images of the data set, or scikit-learn's digits, enlarged, where it is not at hand.
    """
    from input_hessian.experiment import datasets

    dataset = load_plugin("dataset", name).DATASET
    with tempfile.TemporaryDirectory() as scratch:
        try:
            datasets.fetch(dataset, Path(scratch), mirrors=[str(folder)])
        except datasets.DatasetError:
            dataset = load_plugin("dataset", "digits").DATASET
        tensors = datasets.prepare(dataset, Path(scratch))
    images = tensors["train_images"][:count].float().div(255)
    if images.shape[1:] != MAIN[0]:
        images = F.interpolate(images, MAIN[0][1:], mode="bilinear")
    return dataset.name, images, tensors["train_labels"][:count]


def train_network(model_name, images, labels, device, steps) -> nn.Sequential:
    """Return a network after some steps of Adam with the Hessian penalty."""
    variant = Variant("training", 2, ours(LayerwiseHessian, "power", 2))
    step = Step(variant, model_name, MAIN[0], device, learning_rate=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(len(images), (256,), generator=generator)
        step(images[batch].to(device), labels[batch].to(device))
    return step.model


def true_norm(model, images, labels) -> Tensor:
    """Return ``||H||`` per image: the larger of two long Lanczos runs, one from each start."""
    hessian = InputHessian(model, images, labels)
    generator = torch.Generator(images.device).manual_seed(1)
    runs = [
        operator_norm(
            hessian, method="lanczos", hvps=60, tolerance=1e-4, start=start, generator=generator
        )
        for start in ("gradient", "random")
    ]
    missed = 1 - runs[0].converged.float().mean().item()
    if missed > 0:
        print(f"{missed:.1%} of the Lanczos runs stopped before convergence", flush=True)
    return torch.maximum(runs[0].norm, runs[1].norm)


def fractions_found(names, model, images, labels) -> dict[str, float]:
    """Return mean norm found / mean true norm for each variant that estimates ``||H||``."""
    truth, found = true_norm(model, images, labels), {}
    for name in names:
        if not BY_NAME[name].estimates_hessian:
            continue
        count = EXPLICIT_BATCH if name == EXPLICIT.name else len(images)
        generator = torch.Generator(images.device).manual_seed(0)
        _, norm = BY_NAME[name].objective(model, images[:count], labels[:count], generator)
        found[name] = (norm.detach().mean() / truth[:count].mean()).item()
    return found


# ---- results -------------------------------------------------------------------------------------

FAMILY_STYLES = {  # Wong's colour-blind safe colours: blues for ours
    "ours: power from g": ("#0072B2", "o", "-"),
    "ours: power from softmax start": ("#0072B2", "*", "-."),
    "ours: Lanczos from g": ("#0072B2", "s", ""),
    "ours, fallback: power from g by double backprop": ("#56B4E9", "o", "--"),
    "power, random start": ("#D55E00", "^", "-"),
    "Lanczos, random start": ("#E69F00", "D", "-"),
    "ascent, random start": ("#CC79A7", "v", "-"),
    "CURE (h 1.5, sign of g)": ("#009E73", "P", ""),
    "finite difference along g (h 0.01)": ("#009E73", "X", ""),
    "torch.func jvp of grad along g": ("black", "<", ""),
    "torch.func jvp of jvp along g": ("black", ">", ""),
}
MOST_SHOWN = 0.998
TICKS = [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, MOST_SHOWN]


def draw(table, path: Path) -> None:
    """Draw cost against the fraction of the norm found, one panel per model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.style.use(HERE.parent / "src/input_hessian/experiment/style.mplstyle")
    main = table[(table["shape"] == "x".join(map(str, MAIN[0]))) & (table["batch"] == MAIN[1])]
    names = list(main["model"].unique())
    figure, grid = plt.subplots(
        1,
        len(names),
        figsize=(4.6 * len(names), 5.2),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )

    def height(fraction):  # even steps where little is missing; 1 would be infinitely high
        return -math.log10(1 - min(fraction, MOST_SHOWN))

    for axes, name in zip(grid[0], names, strict=True):
        rows = main[main["model"] == name].dropna(subset=["ratio", "fraction"])
        points = []
        for family, (colour, marker, line) in FAMILY_STYLES.items():
            group = rows[rows["family"] == family]
            x, y = group["ratio"], group["fraction"].map(height)
            axes.plot(x, y, line, color=colour, marker=marker, markersize=6, label=family)
            spread = [x - group["q25"], group["q75"] - x]
            axes.errorbar(x, y, xerr=spread, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5)
            points += [
                (a, b, "" if math.isnan(k) else f"{k:.0f}", colour)
                for a, b, k in zip(x, y, group["hvps"], strict=True)
            ]
        axes.set_xscale("log")
        low, high = rows["q25"].min() / 1.1, rows["q75"].max() * 1.1
        axes.set_xlim(low, high)
        ticks = [t for t in (2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 60) if low < t < high]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        every = main.dropna(subset=["ratio", "fraction"])["fraction"]
        axes.set_ylim(height(max(every.min() - 0.08, 0.0)), height(every.max()) + 0.2)
        shown = [t for t in TICKS if axes.get_ylim()[0] <= height(t) <= axes.get_ylim()[1]]
        axes.set_yticks(
            [height(t) for t in shown], [f"≥ {t}" if t == MOST_SHOWN else str(t) for t in shown]
        )
        unit, rounds = rows["plain_ms"].iloc[0], int(rows["rounds"].iloc[0])
        axes.set_title(f"{name}, width {WIDTHS[name]} (1 = {unit:.1f} ms, {rounds} rounds)")
        axes.set_xlabel("training step / plain training step")
        _place_labels(axes, points)
    grid[0][0].set_ylabel("fraction of the true mean norm found")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    note = "; ".join(
        f"{row.model} {row.extrapolated_ratio:.0f}"
        for row in table.dropna(subset=["extrapolated_ratio"]).itertuples()
    )
    figure.suptitle(
        f"Cost at equal accuracy, batch {MAIN[1]}, 28x28; numbers: Hessian-vector products.\n"
        + (f"Not shown: explicit Hessian, fraction 1, ratio extrapolated: {note}" if note else ""),
        fontsize=9,
    )
    figure.savefig(path)
    plt.close(figure)


def _place_labels(axes, points) -> None:
    """Write each label at the nearest of some places around its point that is still free."""
    axes.figure.canvas.draw()
    centres = [axes.transData.transform(point[:2]) for point in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in centres]
    for (x, y), (a, b, text, colour) in zip(centres, points, strict=True):
        if not text:
            continue
        half = (2 + 4 * len(text), 6)
        places = [
            (x + r * math.cos(t * math.pi / 4), y + r * math.sin(t * math.pi / 4))
            for r in (13, 18, 24)
            for t in (2, 6, 1, 7, 3, 5, 0, 4)
        ]
        for u, v in places:
            box = (u - half[0], v - half[1], u + half[0], v + half[1])
            if not any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
                for other in taken
            ):
                break
        taken.append(box)
        # dots at the figure's dpi to points
        scale = 72 / axes.figure.dpi
        offset = ((u - x) * scale, (v - y) * scale)
        axes.annotate(
            text,
            (a, b),
            xytext=offset,
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            fontsize=8,
        )


def markdown(table) -> str:
    """Return the README's table and the line below it."""
    shape, batch = "x".join(map(str, MAIN[0])), MAIN[1]
    names = list(table["model"].unique())
    columns = [f"{name}: {what}" for name in names for what in ("cost", "MiB", "found")]
    lines = ["| variant, HVPs | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]

    def cell(value, form):
        return "" if value is None or math.isnan(value) else format(value, form)

    here = table[(table["shape"] == shape) & table["batch"].isin([batch, EXPLICIT_BATCH])]
    for variant in BY_NAME:
        cells = []
        for name in names:
            rows = here[(here["model"] == name) & (here["variant"] == variant)]
            explicit_row = variant == EXPLICIT.name
            rows = rows[rows["batch"] == (EXPLICIT_BATCH if explicit_row else batch)]
            if rows.empty:
                cells += ["", "", ""]
                continue
            row = rows.iloc[0]
            if explicit_row:
                cost = f"about {row['extrapolated_ratio']:.0f} (extrapolated)"
                memory = cell(row["memory_mib"], "+.0f") + f" (batch {EXPLICIT_BATCH})"
            else:
                cost = cell(row["ratio"], ".2f")
                cost += f" ({row['q25']:.2f}-{row['q75']:.2f})" if cost else ""
                memory = cell(row["memory_mib"], "+.0f")
            cells += [cost, memory, cell(row["fraction"], ".3f")]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")

    main = table[(table["shape"] == shape) & (table["batch"] == batch)]
    units = ", ".join(
        f"{name} {rows['plain_ms'].iloc[0]:.1f} ms (n = {rows['rounds'].max():.0f} rounds)"
        for name, rows in main.groupby("model", sort=False)
    )
    first = table.iloc[0]
    lines += [
        "",
        f"Batch {batch}, images {shape}; plain step: {units}; PyTorch {first['torch']}, "
        f"{first['device']} ({first['processor']}), {first['threads']} thread(s); fraction found "
        f"on {first['images']} ({first['fraction_images']:.0f} images).",
    ]
    others = table[table["batch"].isin(BATCHES)]
    picked = [
        "ours: power from g, 1",
        "ours: power from g, 2",
        "ours: power from softmax start, 1",
        "ours: power from softmax start, 2",
        "power, random start, 4",
    ]
    lines += [
        "",
        "Other sizes, cost alone:",
        "",
        "| model | images | batch | " + " | ".join(picked),
    ]
    lines[-1] += " |"
    lines.append("|---" * (3 + len(picked)) + "|")
    for (name, images, size), rows in others.groupby(["model", "shape", "batch"], sort=False):
        ratios = rows.set_index("variant")["ratio"].reindex(picked)
        cells = [cell(value, ".2f") or "skipped" for value in ratios]
        lines.append(f"| {name} | {images} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="28x28, batch 64 and 256, few rounds")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="folder of the CSV and the PNG")
    parser.add_argument("--dataset", default="mnist", choices=("mnist", "fashion_mnist"))
    parser.add_argument(
        "--data",
        type=Path,
        default=HERE.parent / "../shared/datasets",
        help="folder with <data set>/<official files>; without it, enlarged digits are used",
    )
    parser.add_argument("--redraw", action="store_true", help="only redraw from the CSV")
    args = parser.parse_args()
    quick = HERE.parent / "results/step_cost_quick"
    output = args.output or (quick if args.quick else HERE / "results")
    csv = output / "step_cost.csv"

    import pandas as pd

    if not args.redraw:
        rows = measure(args)
        frame = pd.DataFrame(rows)
        frame["hvps"] = frame["hvps"].astype("Int64")
        frame["rounds"] = frame["rounds"].astype("Int64")
        write_atomically(csv, frame.to_csv(index=False, float_format="%.5g"))
    elif not csv.exists():
        raise UserError(f"--redraw: {csv} does not exist")
    table = pd.read_csv(csv)
    draw(table, csv.with_suffix(".png"))
    text = markdown(table)
    print(text)
    if output.resolve() == (HERE / "results").resolve():
        write_table("step_cost.py", text)


def measure(args: argparse.Namespace) -> list[dict]:
    """Run all measurements; return the rows of the CSV."""
    device = resolve_device(args.device)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    shapes, batches = (SHAPES[:1], BATCHES[:2]) if args.quick else (SHAPES, BATCHES)
    least, trained_steps = (3, 50) if args.quick else (LEAST_ROUNDS, TRAINED_STEPS)
    began = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - began:4.0f} s] {text}", flush=True)

    everything = list(BY_NAME)
    memory = {}
    for name in WIDTHS:
        memory[name] = {}
        if not args.quick:
            say(f"memory: {name}")
            common = (name, MAIN[0], MAIN[1], device, args.threads)
            found = measure_memory([v.name for v in VARIANTS], *common)
            memory[name] = {key: value - found[PLAIN] for key, value in found.items()}
            common = (name, MAIN[0], EXPLICIT_BATCH, device, args.threads)
            found = measure_memory([PLAIN, EXPLICIT.name], *common)
            memory[name][EXPLICIT.name] = found.get(EXPLICIT.name, math.nan) - found[PLAIN]

    source, images, labels = real_images(args.dataset, args.data, 10_256)
    count = min(256, len(images) // 4)
    held_out = images[:count].to(device), labels[:count].to(device)
    fraction = {}
    for name in WIDTHS:
        say(f"fraction found: {name}, {source}")
        model = train_network(name, images[count:], labels[count:], device, trained_steps)
        fraction[name] = fractions_found(everything, model, *held_out)

    rows = []
    for name in WIDTHS:
        for shape in shapes:
            expected = {}
            for batch in batches:
                main = (shape, batch) == MAIN
                budget = 50 if main else {64: 10, 256: 20, 1024: 28}[batch]
                if args.quick or device.type == "cuda":
                    budget /= 6
                say(f"time: {name}, {shape}, batch {batch}")
                cell = measure_cell(VARIANTS, name, shape, batch, device, budget, expected, least)
                expected |= {
                    row["variant"]: row["ms"] / 1000 / batch for row in cell if "ms" in row
                }
                rows += cell
        if not args.quick:
            say(f"time: {name}, explicit Hessian")
            chosen = [BY_NAME[PLAIN], EXPLICIT]
            cell = measure_cell(chosen, name, MAIN[0], EXPLICIT_BATCH, device, 10, {}, least)
            main_rows = (r for r in rows if r["model"] == name and r["variant"] == PLAIN)
            (unit,) = (
                r["plain_ms"]
                for r in main_rows
                if r["batch"] == MAIN[1] and r["shape"] == cell[0]["shape"]
            )
            times = MAIN[1] / EXPLICIT_BATCH
            cell[1]["extrapolated_ratio"] = cell[1]["ms"] * times / unit
            cell[1]["note"] = (
                f"extrapolated_ratio: {times:.0f} times the milliseconds of this batch over the "
                f"plain step at batch {MAIN[1]}, not measured"
            )
            rows += cell

    environment = {
        "images": f"{source} after {trained_steps} steps with lam {LAM:g}",
        "fraction_images": count,
        "torch": torch.__version__,
        "device": device.type,
        "processor": _processor(device),
        "threads": args.threads,
    }
    main_shape = "x".join(map(str, MAIN[0]))
    for row in rows:
        name, variant = row["model"], row["variant"]
        at_main = row["shape"] == main_shape
        row.setdefault("extrapolated_ratio", math.nan)
        row["fraction"] = fraction[name].get(variant, math.nan) if at_main else math.nan
        measured = EXPLICIT_BATCH if variant == EXPLICIT.name else MAIN[1]
        here = at_main and row["batch"] == measured
        row["memory_mib"] = memory[name].get(variant, math.nan) if here else math.nan
        row["note"] = row.pop("note", "")
        row |= environment
    say("done")
    return rows


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
