"""python -m src.serve: answer what `predict` answers, over HTTP on 127.0.0.1."""

import functools
import importlib.util

from omegaconf import DictConfig

from src.kindling.cli import command, composition
from src.kindling.errors import InputError
from src.kindling.files import run_directory
from src.kindling.layout import install_extra


@command.command("serve")
def main(config: DictConfig) -> None:
    """Serve the checkpoint that `run=` names until a signal comes."""
    settings = composition.resolved(config)
    if not all(importlib.util.find_spec(name) for name in ("fastapi_offline", "uvicorn")):
        raise InputError(f"src.serve needs FastAPI and uvicorn; {install_extra('serve')}")
    run, log_dir = str(settings["run"]), settings["log_dir"]
    if not run.endswith(".ckpt"):
        run = str(run_directory.find(run, log_dir))  # a reload stays with this run
    find = functools.partial(run_directory.find_checkpoint, run, log_dir)
    find()
    from src.kindling.serve import server

    server.check(settings)
    server.serve(find, settings)


if __name__ == "__main__":
    main()
