"""A SLURM cluster of two nodes on loopback: munge, slurmctld and two slurmd, all of one test run.

The programs are those of Debian's packages slurm-wlm and munge: installed, or unpacked by
`make slurm` into .venv/slurm, where no other test finds an `srun`.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.conftest import ROOT

PLACES = (Path("/"), ROOT / ".venv" / "slurm")
CONFIGURATION = """
ClusterName=kindling
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
AuthInfo=socket={folder}/munge.socket,cred_expire=10
AuthType=auth/munge
CredType=cred/munge
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=5
MinJobAge=300
ReturnToService=2
JobRequeue=1
OverTimeLimit=0
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=4 RealMemory=1000
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=4 RealMemory=1000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


def installed() -> Path | None:
    """Return where SLURM is unpacked; None if it is not."""
    found = (place for place in PLACES if (place / "usr/sbin/slurmctld-wlm").is_file())
    return next(found, None)


class Cluster:
    """A cluster, its files in a folder.

    Args:
        place: where the programs are.
        folder: where its files go; its path is short, for the sake of a socket.
    """

    def __init__(self, place: Path, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        libraries = next(place.glob("usr/lib/*/slurm-wlm"))
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{place}/usr/bin:{place}/usr/sbin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{libraries}:{libraries.parent}",
        }
        with contextlib.ExitStack() as held:
            free = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            ports = [server.getsockname()[1] for server in free]
        text = CONFIGURATION.format(
            host=socket.gethostname(), ports=ports, folder=folder, plugins=libraries
        )
        (folder / "slurm.conf").write_text(text)

    def start(self) -> None:
        """Start all daemons, and wait until both nodes are idle."""
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (self.folder / "state").mkdir()
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid"}
        files |= {"log-file": "log", "seed-file": "seed"}
        words = [f"--{name}={self.folder}/munge.{ending}" for name, ending in files.items()]
        self._daemon("munged", "munged", "--foreground", "--force", *words)
        until((self.folder / "munge.socket").exists, 20)
        self._daemon("slurmctld", "slurmctld-wlm", "-D")
        for node in ("n1", "n2"):
            self.start_node(node)
        until(lambda: self.ask("sinfo", "-h", "-o", "%T").split() == ["idle"], 60)

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        stepd = str(self.place / "usr/sbin/slurmstepd-wlm")
        self._daemon(name, "slurmd-wlm", "-D", "-N", name, "-d", stepd)

    def kill_node(self, name: str) -> None:
        """Kill the daemon of a node and all that it runs at one instant, as a power cut does."""
        daemon = self.daemons.pop(name)
        tasks = [p for p, held in self._owned() if f"SLURMD_NODENAME={name}".encode() in held]
        stepds = [parent for task in tasks if (parent := parent_of(task)) > 1]
        doomed = {daemon.pid, *stepds, *tasks}
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in doomed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)
        daemon.wait()

    def stop(self) -> None:
        """End all daemons and all that jobs have left."""
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process, _ in self._owned():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _owned(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and environment of the processes that know this cluster's configuration."""
        mine = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                held = path.read_bytes().split(b"\0")
                if mine in held and int(path.parent.name) != os.getpid():
                    yield int(path.parent.name), b"\0".join(held)

    def _daemon(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def ask(self, *words: str) -> str:
        """Run one of SLURM's commands; return what it prints."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def submit(self, *words: str) -> str:
        """Submit a job with sbatch; return its number."""
        return self.ask("sbatch", "--parsable", *words).strip()

    def state(self, job: str) -> str:
        """Return the state of a job, such as PENDING; of an array, one line per task."""
        return self.ask("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()

    def wait(self, job: str, seconds: float = 240) -> str:
        """Wait until a job has ended; return its state."""
        going = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED"}
        until(lambda: not going & {*self.state(job).split()}, seconds)
        return self.state(job)


def parent_of(process: int) -> int:
    """Return the parent of a process; 0 if there is no such process."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{process}/stat").read_text()
        return int(status.rpartition(")")[2].split()[1])
    return 0


def until(condition: Callable[[], object], seconds: float) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextlib.contextmanager
def running(place: Path) -> Iterator[Cluster]:
    """Start a cluster; nothing of it is left afterwards."""
    folder = Path("/tmp") / f"kindling-slurm-{os.getpid()}"
    folder.mkdir(mode=0o755)
    cluster = Cluster(place, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)
