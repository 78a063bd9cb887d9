"""Ranks that this command has not launched: rank 0 chooses the run directory and tells the others.

torchrun launches each rank, on one host or several. Without it, the same command is given on each
of `trainer.num_nodes` hosts, with MASTER_ADDR, MASTER_PORT and NODE_RANK. All hosts need the same
`log_dir`, on a file system that they share.
"""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from src.kindling.errors import InputError
from src.kindling.layout import LAST, Plain
from src.kindling.process import ranks
from src.kindling.process.requeue import job

KEY = "kindling/run"  # torchrun's store keeps it when the ranks are restarted
PROCESS_GROUP = "default_pg/"  # the keys under which torch's ranks find one another
MEETING = ("MASTER_ADDR", "MASTER_PORT")
PATIENCE = 300.0  # seconds that ranks wait for rank 0 to choose the run directory
LAG = 30.0  # seconds in which a network drive shows a new directory to other hosts
_held: list[Any] = []  # rank 0's store, which the others may ask until the process ends


def find_run(trainer: Plain) -> Path | None:
    """On further ranks of a run, wait for the directory that rank 0 has chosen.

    Args:
        trainer: the settings of the Trainer.

    Returns:
        The run that continues, if torchrun has restarted its ranks; otherwise None.

    Raises:
        InputError: a variable is missing, the number of processes differs from the settings, or
            rank 0 has refused its settings.
        ConnectionError: rank 0 does not answer.
    """
    if not _meets(trainer):
        return None
    _check(trainer)
    if _rank(trainer) == 0:
        _held[:] = [store := _store(trainer)]
        return _run_before(store)
    run = _asked(trainer)
    if not run:
        raise InputError("rank 0 has refused its settings; its console says why")
    deadline = time.monotonic() + LAG
    while not Path(run).is_dir():
        if time.monotonic() > deadline:
            raise InputError(f"log_dir: {run} is not on this host; all hosts must share it")
        time.sleep(0.1)
    ranks.follow(Path(run), _rank(trainer) - int(os.environ.get("LOCAL_RANK", "0")))
    # Nothing is saved in a new run before all of its ranks have met.
    return Path(run) if (Path(run) / "checkpoints" / LAST).is_file() else None


def announce(run: Path | None) -> None:
    """On rank 0, tell the other ranks the directory of the run; None: there will be none."""
    for store in _held:
        if not store.check([_key()]):
            text = str(run.absolute()) if run else ""
            store.set(KEY, text)
            store.set(_key(), text)


def _run_before(store: Any) -> Path | None:
    """Return the run of ranks that torchrun has restarted, and forget where those have met.

    The store is still theirs: ranks that start sooner than others would look for them at the
    addresses of those that died.
    """
    run = store.get(KEY).decode() if store.check([KEY]) else ""
    if not run:
        return None
    for key in store.list_keys():
        if key.startswith(PROCESS_GROUP):
            store.delete_key(key)
    return Path(run)


def _key() -> str:
    return f"{KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _meets(trainer: Plain) -> bool:
    if ranks.is_launched():
        return False
    return ranks.is_torchrun() or (job() is None and trainer["num_nodes"] > 1)


def _check(trainer: Plain) -> None:
    devices, nodes = trainer["devices"], trainer["num_nodes"]
    if not ranks.is_torchrun():
        missing = [name for name in (*MEETING, "NODE_RANK") if name not in os.environ]
        if missing:
            raise InputError(
                f"trainer.num_nodes={nodes}: {', '.join(missing)} missing in the environment, where"
                " each host is told its rank and the address of the first"
            )
        return
    per_node, processes = ranks.per_node(devices), int(os.environ["WORLD_SIZE"])
    if per_node > 0 and per_node * nodes != processes:
        raise InputError(
            f"trainer.devices={devices}: {per_node * nodes} process(es), and torchrun has started"
            f" {processes}; trainer.devices times trainer.num_nodes must be that number"
        )


def _rank(trainer: Plain) -> int:
    """Return the global rank of this process."""
    if ranks.is_torchrun():
        return int(os.environ["RANK"])
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return int(os.environ["NODE_RANK"]) * abs(ranks.per_node(trainer["devices"])) + local


def _store(trainer: Plain) -> Any:
    """Return the store in which ranks meet; torchrun's agent has one, else rank 0 makes it."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    first = _rank(trainer) == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    host, port = (os.environ[name] for name in MEETING)
    return TCPStore(
        host,
        int(port),
        is_master=first,
        timeout=timedelta(seconds=PATIENCE),
        wait_for_workers=False,
        multi_tenant=True,  # the process group of the fit meets at the same port
    )


def _asked(trainer: Plain) -> str:
    """Wait for rank 0, and return what it has announced."""
    try:
        text: str = _store(trainer).get(_key()).decode()
    except RuntimeError as error:  # torch's own errors of stores extend it
        raise ConnectionError(
            f"MASTER_ADDR={os.environ['MASTER_ADDR']} MASTER_PORT={os.environ['MASTER_PORT']}: rank"
            f" {_rank(trainer)} had no answer from rank 0 there in {PATIENCE:g} s"
        ) from error
    return text
