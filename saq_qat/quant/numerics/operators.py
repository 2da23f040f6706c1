"""Operators of our own: what a compiler or an exporter calls and does not take apart."""

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["define_operator"]

_LIBRARY = torch.library.Library("saq_qat", "DEF")  # type: ignore[no-untyped-call]  # torch has no types here


def define_operator(schema: str, compute: Callable[..., Any], shape: Callable[..., Any]) -> Any:
    """An operator of the namespace ``saq_qat``; not by ``torch.library.custom_op``, whose first call imports
    the compiler.

    Args:
        shape: empty tensors of what ``compute`` gives.
    """
    _LIBRARY.define(schema)  # type: ignore[no-untyped-call]  # as above
    name = schema.partition("(")[0]
    _LIBRARY.impl(name, compute, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]  # as above
    torch.library.register_fake(f"saq_qat::{name}", shape, lib=_LIBRARY)
    return getattr(torch.ops.saq_qat, name).default
