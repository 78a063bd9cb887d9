"""The storage of a study: a SQLite file in its directory, or a PostgreSQL server."""

import contextlib
import os
import time
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from src.kindling.errors import InputError, first_line
from src.kindling.files import bounded
from src.kindling.layout import install_extra

FILE = "study.db"
EXAMPLE = "postgresql://user@host/database"
MISSED = 3  # heartbeats that a worker may miss
PATIENCE = 120.0  # seconds that a worker waits for a server that restarts
# File systems on which two hosts can hold the same lock: SQLite would be damaged.
REMOTE = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "lustre", "gpfs", "beegfs", "afs", "ceph")


class Storage(optuna.storages.RDBStorage):
    """Optuna's storage; a heartbeat that cannot be stored is skipped, but for a trial's first."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Store a heartbeat."""
        with contextlib.suppress(StorageInternalError, sqlalchemy.exc.SQLAlchemyError):
            super().record_heartbeat(trial_id)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Store a state, and a heartbeat before a trial runs: Optuna never misses one without."""
        if state == TrialState.RUNNING:
            super().record_heartbeat(trial_id)
        return super().set_trial_state_values(trial_id, state, values)


class StorageLostError(Exception):
    """The study cannot be read or written any more; the message says why."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Name the database's own reason, which Optuna's errors hide behind others.

    Raises:
        StorageLostError: saying that the trial is not lost.
    """
    try:
        yield
    except (AssertionError, StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause: Any = error
        while cause and not isinstance(cause, sqlalchemy.exc.SQLAlchemyError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        line = first_line(getattr(cause, "orig", None) or cause)
        told = f"the study's storage: {line}; the same command continues the study, and its trials"
        raise StorageLostError(told) from error


def url_of(storage: str | None, folder: Path, key: str = "study.storage") -> str:
    """Return the storage's address for SQLAlchemy.

    Args:
        storage: the setting; None for a SQLite file.
        folder: where that file is.
        key: the setting's name.

    Raises:
        InputError: it is neither SQLite nor PostgreSQL.
    """
    if storage is None:
        return f"sqlite:///{folder.resolve() / FILE}"
    try:
        url = sqlalchemy.make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):  # not shown: it may hold a password
        raise InputError(f"{key}: not an address such as {EXAMPLE}") from None
    if url.get_backend_name() != "postgresql":
        raise InputError(f"{key}={url}: choose null (SQLite) or {EXAMPLE}")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


@contextlib.contextmanager
def locked(url: str, folder: Path, patient: bool = False) -> Iterator[None]:
    """Keep other workers of the study waiting: those of this file, or of this server's database.

    Args:
        url: of the storage.
        folder: of the study.
        patient: wait for a server that restarts.
    """
    if url.startswith("sqlite"):
        with _file_locked(folder / ".study.lock"):
            yield
        return
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    if patient:
        sqlalchemy.event.listen(engine, "do_connect", _connect_patiently)
    number = zlib.crc32(folder.name.encode())
    with _connected(engine) as connection:
        connection.exec_driver_sql(f"select pg_advisory_lock({number})")
        yield  # the lock ends with the connection


@contextlib.contextmanager
def _connected(engine: Any) -> Iterator[Any]:
    try:
        connection = engine.connect()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise InputError(f"study.storage: {_reason(error)}") from None
    with connection:
        yield connection


def _reason(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return f"PostgreSQL needs psycopg; {install_extra('study')} installs it"
    cause = getattr(error, "orig", None) or error
    return f"the server cannot be reached: {first_line(cause)}"


@contextlib.contextmanager
def _file_locked(path: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows: one worker at a time
        yield
        return
    try:
        file = bounded.open_append(path)
    except OSError as error:
        raise InputError(f"{path} cannot be locked: {bounded.reason(error)}") from None
    with file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def opened(url: str, folder: Path, heartbeat: int) -> Storage:
    """Open the storage, and make its tables where there are none; call it under `locked`.

    Raises:
        InputError: the file is not a database, or there is no such server.
    """
    sqlite = url.startswith("sqlite")
    arguments: Any = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
    try:
        storage = Storage(
            url, arguments, heartbeat_interval=heartbeat, grace_period=MISSED * heartbeat
        )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        if sqlite:
            cause = getattr(error, "orig", None) or error
            raise InputError(f"{folder / FILE} cannot be opened: {first_line(cause)}") from None
        raise InputError(f"study.storage: {_reason(error)}") from None
    weakref.finalize(storage, storage.engine.dispose)  # Optuna leaves the connections open
    if not sqlite:
        sqlalchemy.event.listen(storage.engine, "do_connect", _connect_patiently)
    return storage


def _connect_patiently(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
    """Connect, and wait for a server that has just gone away."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def remote_file_system(folder: Path) -> str | None:
    """Return the type of a folder's file system where several hosts may share it; else None."""
    mounts = Path("/proc/self/mounts")
    if not mounts.is_file():
        return None
    lines = [line.split() for line in mounts.read_text(encoding="utf-8").splitlines()]
    path = os.path.realpath(folder)
    holding = [
        (where, kind) for _, where, kind, *_ in lines if os.path.commonpath([path, where]) == where
    ]
    kind = max(holding, key=lambda entry: len(entry[0]), default=("", ""))[1]
    return kind if kind.startswith(REMOTE) else None
