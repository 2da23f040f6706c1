"""The training loop: stages, checkpoints, resuming, evaluation.

``saq_qat.train(recipe)`` is a function that the package offers, and this room, once imported, is what
``saq_qat.train`` means: it can be called, therefore, and hands the call on.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ()


class _Room(ModuleType):
    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """As ``saq_qat.door.training.train``, which stands above this room and is found when it is called."""
        return import_module("saq_qat.door.training").train(*arguments, **settings)


sys.modules[__name__].__class__ = _Room
