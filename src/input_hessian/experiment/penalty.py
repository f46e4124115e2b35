"""Penalties from a configuration: the class of a name or path, with its options checked."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.plugins import load_plugin
from input_hessian.penalties import Penalty


def penalty_class(penalty: str) -> type[Penalty]:
    """Return the penalty's class, of which its file holds exactly one.

    Raises:
        UserError: as :func:`load_plugin`, or if the file holds no such class, or several.
    """
    module = load_plugin("penalty", penalty)
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Penalty)
        and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise UserError(
            f"penalty: expected one class that derives from Penalty in {module.__file__}, "
            f"got {len(classes)}"
        )
    return classes[0]


def build_penalty(penalty: str, **options: Any) -> Penalty:
    """Return the penalty of a name or path, its options checked against its fields.

    Example: ``build_penalty("hessian", lam=1.0, estimator={"method": "power", "hvps": 2})``.

    Raises:
        UserError: as :func:`penalty_class`; or naming every option that is missing, unknown or wrong.
    """
    try:
        # As JSON: there, pydantic's strict mode takes a mapping for a dataclass, and "1" for no number.
        return TypeAdapter(penalty_class(penalty)).validate_json(
            json.dumps(options, default=str), strict=True
        )
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'options'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise UserError(f"penalty {penalty!r} with options {options}: {problems}") from None
