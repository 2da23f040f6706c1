"""What a study starts, without training anything: moves files that a test has laid out, as its orders say.

Orders lie in the folder STUB, a JSON file for each job: ``wait`` (until a signal comes), ``fail`` (an exit
code). Every call is written to calls.jsonl there.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

STUB = Path(os.environ["STUB"])


def leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def new_run(name: str, runs: Path) -> Path:
    run = runs / name / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid():04x}"
    run.mkdir(parents=True)
    shutil.copy(STUB / f"{name}.yaml", run / "resolved.yaml")
    (run / "log.jsonl").write_text('{"event": "step", "step": 1}\n')
    return run


def main() -> None:
    arguments = sys.argv[1:]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    if arguments[0] == "measure":
        run, kind = Path(arguments[1]), "measure"
    elif arguments[1] == "--resume":
        run, kind = Path(arguments[2]), "resume"
    else:
        name = next(a.partition("=")[2] for a in arguments if a.startswith("name="))
        run, kind = new_run(name, Path(arguments[arguments.index("--runs") + 1])), "train"
    name = run.parent.name
    call = {"job": name, "kind": kind, "threads": os.environ["OMP_NUM_THREADS"], "begun": time.time()}
    orders_file = STUB / f"{name}.json"
    orders = json.loads(orders_file.read_text()) if orders_file.exists() else {}
    print(f"{kind} {name}")
    if orders.get("wait") == kind:
        (STUB / f"{name}.pid").write_text(str(os.getpid()))
        time.sleep(60)
    time.sleep(orders.get("seconds", 0))
    if orders.get("at", kind) == kind and "fail" in orders:
        print("it did not work", flush=True)
        if orders["fail"] < 0:
            os.kill(os.getpid(), -orders["fail"])
        sys.exit(orders["fail"])
    if kind == "measure":
        (run / "analysis").mkdir(exist_ok=True)
        shutil.copy(STUB / f"{name}.measured", run / "analysis" / "measured.json")
    else:
        shutil.copytree(STUB / "checkpoint", run / "checkpoints" / "last", dirs_exist_ok=True)
        (run / "log.jsonl").write_text('{"event": "end", "step": 2, "seconds": 1.5}\n')
    with (STUB / "calls.jsonl").open("a") as file:
        file.write(json.dumps({**call, "ended": time.time()}) + "\n")


main()
