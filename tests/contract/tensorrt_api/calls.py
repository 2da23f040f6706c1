"""Whether a call fits one of a function's signatures, and passes members of enums rather than numbers."""

import ast
from inspect import Signature

from tests.contract.tensorrt_api.api import OTHER, Api, Kind, instance

__all__ = ["fault_of_call", "is_number", "returned", "wants_member"]


def fault_of_call(call: ast.Call, signatures: list[Signature], api: Api) -> tuple[str, Kind]:
    """What is wrong with the call, empty if nothing is, and what it gives."""
    if not signatures:
        return "it cannot be called", OTHER
    starred = any(isinstance(argument, ast.Starred) for argument in call.args)
    if starred or any(keyword.arg is None for keyword in call.keywords):
        return "arguments are unpacked, so that they cannot be checked; write them out", OTHER
    positional = list(call.args)
    named = {keyword.arg or "": keyword.value for keyword in call.keywords}
    faults = []
    for signature in signatures:
        try:
            bound = signature.bind(*positional, **named)
        except TypeError as error:
            faults.append(str(error))
            continue
        values = {name: value for name, value in bound.arguments.items() if isinstance(value, ast.expr)}
        wrong = [n for n, v in values.items() if wants_member(n, signature.parameters[n].annotation, v, api)]
        if not wrong:
            return "", returned(signature)
        faults.append(f"{wrong[0]} takes members of an enum by name, not a number")
    return faults[0], returned(signatures[0])


def returned(signature: Signature) -> Kind:
    """What a call gives."""
    return instance(str(signature.return_annotation))


def wants_member(name: str, type_name: str, value: ast.expr, api: Api) -> bool:
    """Whether a number stands where a member of an enum, or bits made of members, belong."""
    if not is_number(value):
        return False
    return type_name in api.enums or (name in ("flags", "flag") and ast.unparse(value) != "0")


def is_number(node: ast.expr) -> bool:
    """A number written out, shifted or combined."""
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int) and not isinstance(value, bool)
        case ast.UnaryOp(operand=operand):
            return is_number(operand)
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
    return False
