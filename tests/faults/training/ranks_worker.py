"""One of two processes of test_ranks.py: trains, ends as it was told to, and writes what it met."""

import os
import signal
import sys
from pathlib import Path

from saq_qat.errors import SaqError
from saq_qat.train.progress import Progress
from saq_qat.train.run import run_training
from tests.faults.training.recipes import faulty_recipe

__all__: list[str] = []

ENDS = {"dies": signal.SIGKILL, "hangs": signal.SIGSTOP}


def _main(folder: Path, end: str, resume: bool) -> None:
    rank = int(os.environ["RANK"])

    def stop(state: Progress) -> None:
        if end in ENDS and rank == 1 and state.step == 3:
            os.kill(os.getpid(), ENDS[end])

    try:
        run_training(faulty_recipe("train.checkpoint_steps=2"), folder, resume=resume, on_progress=stop)
    except SaqError as error:
        (folder.parent / f"{end}-{rank}.txt").write_text(str(error))
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], len(sys.argv) > 3)
