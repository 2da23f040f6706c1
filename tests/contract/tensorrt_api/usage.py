"""Every use of TensorRT in our modules that one version of its API does not allow."""

from dataclasses import dataclass

from tests.contract.tensorrt_api.api import Api
from tests.contract.tensorrt_api.program import Facts, Module, takes_library
from tests.contract.tensorrt_api.walk import Walk

__all__ = ["Problem", "Usage", "Use", "usage_of"]

_ROUNDS = 12
_UNKNOWN = "cannot tell"


@dataclass(frozen=True, order=True)
class Problem:
    """What is wrong and where; ``name`` is that of what the version lacks, as ``Class.attribute``."""

    module: str
    line: int
    text: str
    name: str


@dataclass(frozen=True, order=True)
class Use:
    """An attribute of the library or its objects, ``name`` as ``Class.attribute``, and where it ends."""

    module: str
    line: int
    column: int
    name: str


@dataclass(frozen=True)
class Usage:
    """What modules do with one version."""

    problems: tuple[Problem, ...]
    uses: tuple[Use, ...]


def usage_of(modules: dict[str, Module], api: Api) -> Usage:
    """All uses and problems, in order; what functions pass to each other is followed to its end.

    In modules that take the library, an attribute of something unknown is a problem too.
    """
    facts = Facts()
    strict = {name for name, module in modules.items() if takes_library(module)}
    for _ in range(_ROUNDS):
        before = dict(facts.places)
        walks = [Walk(module, facts, api) for module in modules.values()]
        for walk in walks:
            walk.run()
        if facts.places == before:
            break
    problems = (Problem(walk.module.name, *problem) for walk in walks for problem in walk.problems)
    uses = {Use(walk.module.name, *use) for walk in walks for use in walk.uses}
    known = sorted(p for p in problems if p.module in strict or not p.text.startswith(_UNKNOWN))
    return Usage(tuple(known), tuple(sorted(uses)))
