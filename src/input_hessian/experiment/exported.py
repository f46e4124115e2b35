"""Networks that ``torch.export.save`` wrote: the file holds what they compute, not parameters alone."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from input_hessian.experiment.errors import UserError

SUFFIX = ".pt2"


def load_exported(path: str | Path) -> nn.Module:
    """Return the network of an exported program, which keeps the mode it was exported in.

    PyTorch unpickles parts of the file: as with any pickle, loading it may run code.

    Raises:
        UserError: if the file is missing or no exported program, or if it was exported in training
            mode and batch statistics or dropout are part of what it computes.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; expected a program that torch.export.save wrote")
    logging.disable(logging.ERROR)  # PyTorch logs a traceback before it raises
    try:
        network = torch.export.load(path).module()
    except Exception as error:  # of many kinds, for what is no such file
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise UserError(
            f"{path}: expected a program that torch.export.save wrote, and that this machine can load "
            f"({reason})"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    # PyTorch gives a program methods of these names that raise: its mode is part of the graph.
    for name in ("train", "eval"):
        vars(network).pop(name, None)
    for node in network.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        for argument, value in zip(schema.arguments if schema else [], node.args, strict=False):
            if argument.name in ("train", "training") and value is True:
                raise UserError(
                    f"{path}: exported in training mode ({node.name}); export it after model.eval()"
                )
    return network
