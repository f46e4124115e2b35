"""Make the positive control of the masking checks: a network whose softmax is saturated.

Its last layer is scaled by 10^4.  Every prediction, and so the true robustness, is the network's;
but the cross-entropy's gradient underflows to zero in float32, and attacks on it are blind.
"""

from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.models import load_model, read_settings, save_model

SCALE = 1e4


def main(model: Input, *, masked: Output) -> None:
    settings, _ = read_settings(model)
    network, status = load_model(model)
    *_, last = (module for module in network.modules() if list(module.parameters(recurse=False)))
    for parameter in last.parameters(recurse=False):
        parameter *= SCALE
    save_model(network, settings, masked, status)


if __name__ == "__main__":
    run(main)
