"""Make the positive control of the masking checks, and evaluate it as a cell."""

import evaluate
import mask_gradients

from input_hessian.experiment.command import Input, Output, Settings, run


def main(
    data: Input,
    model: Input,
    *,
    settings: Settings,
    device: str,
    threads: int,
    masked: Output,
    images: Output,
    perturbations: Output,
    evaluation: Output,
    examples: Output,
    masking: Output,
) -> None:
    mask_gradients.main(model, masked=masked)
    evaluate.main(
        data,
        masked,
        settings=settings,
        device=device,
        threads=threads,
        images=images,
        perturbations=perturbations,
        evaluation=evaluation,
        examples=examples,
        masking=masking,
    )


if __name__ == "__main__":
    run(main)
