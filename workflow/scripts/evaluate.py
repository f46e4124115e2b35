"""Evaluate one trained cell: the attacks and, where asked for, all else that is measured of it.

Every part is a script of its own.  Its files are also kept below ``kept/``, with what they depend
on: a changed section of the configuration computes its own part again and no attack.
"""

from collections.abc import Callable
from pathlib import Path

import attack
import check_masking
import measure_curvature
import measure_path
import validate

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.devices import configure
from input_hessian.experiment.kept import keep
from input_hessian.experiment.provenance import environment, fingerprint
from input_hessian.experiment.sources import source_files


def main(
    data: Input,
    model: Input,
    *,
    settings: Settings,
    device: str,
    threads: int,
    images: Output,
    perturbations: Output,
    evaluation: Output,
    examples: Output,
    masking: Output | None = None,
    curvature: Output | None = None,
    path: Output | None = None,
    validation: Output | None = None,
) -> None:
    where = environment(configure(device, threads), threads)

    def part(name: str, script: Callable, inputs: dict[str, Path], outputs: dict[str, Path]):
        depends = [*source_files(script.__file__), *inputs.values()]
        keep(
            images.with_name("kept") / name,
            fingerprint(settings[name], where, depends),
            list(outputs.values()),
            lambda: script.main(
                **inputs, settings=settings[name], device=device, threads=threads, **outputs
            ),
        )

    network = {"data": data, "model": model}
    attacked = {"images": images, "perturbations": perturbations}
    attacked |= {"evaluation": evaluation, "examples": examples}
    part("attack", attack, network, attacked)
    if masking:
        part("masking", check_masking, network | {"images": images}, {"masking": masking})
    if curvature:
        part("curvature", measure_curvature, network, {"curvature": curvature})
    if path:
        part("path", measure_path, network, {"path": path})
    if validation:
        part("validation", validate, network, {"validation": validation})


if __name__ == "__main__":
    run(main)
