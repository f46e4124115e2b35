"""The command ``input-hessian``: one network under the attacks of the pipeline."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import cyclopts

from input_hessian.experiment.errors import UserError

# Of config.yaml, of the demo for the digits, and of config/cifar10.yaml.
EPSILONS = {
    "mnist": {"linf": [0.05, 0.1, 0.15, 0.2], "l2": [0.5, 1, 1.5, 2]},
    "fashion_mnist": {"linf": [0.025, 0.05, 0.075, 0.1], "l2": [0.25, 0.5, 0.75, 1]},
    "digits": {"linf": [0.1, 0.2], "l2": [0.5, 1]},
    "cifar10": {"linf": [0.00784, 0.01569, 0.03137], "l2": [0.25, 0.5]},
}
QUERIES = 1000  # of the masking checks' Square attack, as in config.yaml

app = cyclopts.App(
    name="input-hessian",
    help="Clean and robust accuracy, curvature and masking checks of a network.",
    version_flags=(),
    default_parameter=cyclopts.Parameter(consume_multiple=True, negative=()),
)


@app.command
def evaluate(
    checkpoint: Path,
    dataset: str,
    /,
    *,
    architecture: str = "",
    options: dict[str, int | float | bool | str] | None = None,
    images: int = 200,
    epsilons: dict[str, list[float]] | None = None,
    seed: int = 0,
) -> None:
    """Attack a network and print what it withstands; progress goes to standard error.

    Args:
        checkpoint: A model.safetensors of this pipeline; with --architecture any state dict, in safetensors
            or as torch.save writes it; or an exported program (.pt2), as torch.export.save writes it.
        dataset: mnist, fashion_mnist, digits, ... as snakemake prepares it in the folder data; or the
            path of such a file.
        architecture: What makes the network: cnn, mlp, resnet, a .py file with build(image_shape, classes,
            **options), or package.module:function of an installed package.
        options: Keywords of what makes the network, as in --options.width 16.
        images: How many test images, a random subset: that of the workflow.
        epsilons: Radii in pixel units of [0, 1], as in --epsilons.linf 0.1 0.2 --epsilons.l2 1; by
            default those of config.yaml.
        seed: Of the attacks; the workflow takes that of the network.
    """
    data = (
        Path(dataset) if dataset.endswith(".safetensors") else Path(f"data/{dataset}.safetensors")
    )
    if not data.is_file():
        raise UserError(
            f"{data}: no such file; `snakemake --cores 1 {data}` makes it for a data set of the "
            "configuration"
        )
    epsilons = epsilons or EPSILONS.get(data.stem)
    if not epsilons:
        raise UserError(
            f"epsilons: {data.stem} has no radii by default; add --epsilons.linf 0.1, say"
        )

    from input_hessian.experiment.report import evaluate_and_describe  # imports torch

    with contextlib.redirect_stdout(sys.stderr):
        text = evaluate_and_describe(
            checkpoint, data, architecture, options or {}, images, epsilons, QUERIES, seed
        )
    print(text)


def main(words: list[str] | None = None) -> None:
    """Run these words of a command line, by default those given; an error is one line."""
    try:
        app(words)
    except ValueError as error:  # UserErrors, and those of the method
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
