"""One kit for the day a GPU is there (`make gpu`); README.md beside this says what to bring.

Exit code 1 if a part failed; ``<part>-failed.json`` then holds the reason. The other parts run all the same.
"""

import traceback
from collections.abc import Callable

from tests.gpu.codes import run_codes_part
from tests.gpu.options import Options, parsed
from tests.gpu.product import run_product_part
from tests.gpu.results import is_complete, machine, write_part
from tests.gpu.rtx import run_rtx_part
from tests.gpu.steps import run_steps_part
from tests.gpu.training import run_training_part

__all__ = ["RUN", "main", "write_part"]

RUN: dict[str, Callable[[Options], None]] = {
    "training": run_training_part,
    "codes": run_codes_part,
    "steps": run_steps_part,
    "product": run_product_part,
    "rtx": run_rtx_part,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are not complete yet."""
    options = parsed(arguments)
    failed = [part for part in options.parts if not _runs(part, options)]
    print(f"failed: {', '.join(failed)}" if failed else f"complete; results are in {options.output}")
    return int(bool(failed))


def _runs(part: str, options: Options) -> bool:
    """Whether a part is complete now."""
    if is_complete(options.output, part) and not options.again:
        print(f"{part}: complete before; --again runs it anew")
        return True
    print(f"== {part}", flush=True)
    try:
        RUN[part](options)
    except Exception:  # whatever one part meets, the others run, and the exit code tells
        reason = traceback.format_exc()
        print(reason, flush=True)
        content = {"machine": machine(options.device), "failed": reason}
        write_part(options.output, f"{part}-failed", content, complete=False)
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
