"""Make the positive control of the masking checks: a network whose softmax is saturated.

Its last layer is scaled by 10^4.  Every prediction, and so the true robustness, is the network's;
but the cross-entropy's gradient underflows to zero in float32, and attacks on it are blind.
"""

import torch

from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.models import load_model, read_settings, save_model

SCALE = 1e4


def main(model: Input, *, masked: Output) -> None:
    settings, _ = read_settings(model)
    network, status = load_model(model)
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.weight *= SCALE
    last.bias *= SCALE
    save_model(network, settings, masked, status)


if __name__ == "__main__":
    run(main)
