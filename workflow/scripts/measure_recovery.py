"""Train one network and measure, on the way, how much of ||H|| each estimator finds per budget."""

from collections.abc import Iterator

import pandas as pd
import torch
from tqdm import tqdm

from input_hessian.estimators import OperatorNorm, operator_norm
from input_hessian.experiment import models
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import class_names, evaluation_images, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.penalty import build_penalty
from input_hessian.experiment.training import TrainingSettings, train
from input_hessian.hessian import InputHessian

TRUE_NORM = {"method": "lanczos", "start": "random", "hvps": 80, "tolerance": 1e-4}


def estimates(
    hessian: InputHessian, settings: dict
) -> Iterator[tuple[dict[str, str | int], OperatorNorm]]:
    """Yield every estimator at every budget: its name, start and HVPs, and what it found."""
    for estimator in settings["estimators"]:
        for hvps in settings["hvps"]:
            for draw in range(settings["draws"] if estimator["start"] == "random" else 1):
                generator = torch.Generator(hessian.gradient.device).manual_seed(draw)
                found = operator_norm(hessian, hvps=hvps, generator=generator, **estimator)
                if found.hvps == hvps:  # ascent spends two a step and one at the end
                    yield {**estimator, "hvps": hvps, "draw": draw}, found


class Measuring:
    """A penalty that measures at given steps, without touching the training."""

    def __init__(self, inner, images, labels, steps: set[int], settings: dict):
        self.inner, self.images, self.labels = inner, images, labels
        self.steps, self.settings = steps, settings
        self.step, self.rows = 0, []

    def __call__(self, model, images, labels, generator):
        """Return the inner penalty's objective."""
        if self.step in self.steps:
            self.measure(model)
        self.step += 1
        return self.inner(model, images, labels, generator)

    def measure(self, model) -> None:
        """Compare every estimate with the converged norm, image by image."""
        hessian = InputHessian(model, self.images, self.labels)
        generator = torch.Generator(self.images.device).manual_seed(0)
        true = operator_norm(hessian, generator=generator, **TRUE_NORM)
        tqdm.write(f"step {self.step}: mean ||H|| {true.norm.mean():.4g}")  # above training's bar
        for names, found in estimates(hessian, self.settings):
            fraction = found.norm / true.norm.clamp_min(torch.finfo(true.norm.dtype).tiny)
            self.rows.append(
                {
                    "step": self.step,
                    "true_mean": true.norm.mean().item(),
                    "true_converged": true.converged.double().mean().item(),
                    **names,
                    "of_mean": (found.norm.mean() / true.norm.mean()).item(),
                    "median": fraction.median().item(),
                }
            )


def main(data: Input, *, settings: Settings, device: str, threads: int, recovery: Output) -> None:
    place = configure(device, threads)
    cell, measured = settings["cell"], settings["recovery"]
    training = TrainingSettings(**settings["training"], seed=cell["seed"])
    split, validation = load(data, "train"), load(data, "validation")
    chosen = evaluation_images(data, measured["images"], "train")
    total = training.epochs * -(-len(split.labels) // training.batch_size)
    measuring = Measuring(
        build_penalty(**settings["penalty"]),
        chosen.images.to(place),
        chosen.labels.to(place),
        {round(part * (total - 1)) for part in measured["progress"]},
        measured,
    )
    train(
        lambda: models.build(
            **settings["model"],
            image_shape=split.images.shape[1:],
            classes=len(class_names(data)),
        ),
        measuring,
        (split.images, split.labels),
        (validation.images, validation.labels),
        training,
        device=place,
    )
    # No row where the training diverged before the first measurement.
    table = pd.DataFrame(measuring.rows or {"step": []}).assign(
        **cell, progress=lambda t: t["step"] / total
    )
    write_atomically(recovery, table.to_csv(index=False))


if __name__ == "__main__":
    run(main)
