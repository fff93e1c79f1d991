"""Start runs as forks of a process that has imported PyTorch and fastai, which takes seconds in every new process.

For Linux without a GPU: fastai initializes CUDA when it is imported, and CUDA cannot be used in a fork after that.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from runpy import run_module

from kdfast.core.imports import without_collection
from kdfast.study.gpus import GpuStarter, visible_gpus
from kdfast.study.process import Process, environment, failure_of, has_gpu, n_gpus
from kdfast.study.tasks import KDFAST

IMPORTED = ('kdfast.all', 'kdfast.training.execute')  # what takes long, and starts no threads
SERVE = 'import sys; from kdfast.study.fork_server import serve; serve(int(sys.argv[1]))'
LARGEST_REQUEST = 2**17  # bytes
POLL_SECONDS = 0.1  # between looks for forks that have ended


# In the study


@contextmanager
def run_starter() -> Iterator:  # A function of a command of kdfast and its threads, which returns a Fork or a Process
    """Provide the function that starts runs: as forks, or as processes that share all GPUs.

    All forks have the number of threads of the first one.
    """
    if sys.platform != 'linux' or has_gpu():
        yield GpuStarter(visible_gpus()) if n_gpus() > 1 else Process
        return
    servers = []  # the last one forks: the first run starts one, and so does the next after one has died

    def start(command, threads):
        if not servers or servers[-1].ended:
            servers.append(ForkServer(threads))
        return Fork(servers[-1], command)

    try:
        yield start
    finally:
        for server in servers:
            server.close()


class ForkServer:
    "The process that forks, seen from the study."

    def __init__(
        self,
        threads: int,  # Of each run
    ):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.statuses: dict[int, int] = {}  # of the forks that have ended, by number
        self.n_forks = 0
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, '-P', '-c', SERVE, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment(threads),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C of the terminal reaches the study alone
            )

    @property
    def ended(self) -> bool:
        "Whether the server has died."
        return self.process.poll() is not None

    def fork(
        self,
        words: list[str],  # Arguments of kdfast
        stdin: int,  # File descriptor
        stderr: int,  # File descriptor
    ) -> int:  # Number of the fork
        "Run a command in a fork. If the server has died, the fork has ended with its status."
        self.n_forks += 1
        with suppress(ConnectionError):
            socket.send_fds(self.socket, [json.dumps([self.n_forks, words]).encode()], [stdin, stderr])
        return self.n_forks

    def send_signal(
        self,
        fork: int,  # Its number
        number: int,  # Of the signal
    ):
        "Send a signal to a fork, unless it has ended."
        if self.status(fork) is None:
            with suppress(ConnectionError):  # the server has just died
                self.socket.send(json.dumps([fork, number]).encode())

    def status(
        self,
        fork: int,  # Its number
        wait: bool = False,  # Whether to wait for its end
    ) -> int | None:  # None: it has not ended
        "Return the exit status of a fork; that of the server if the server has ended before."
        while fork not in self.statuses and (wait or select.select([self.socket], [], [], 0)[0]):
            message = receive(self.socket)
            if not message:
                self.statuses |= {n: self.process.wait() for n in range(1, self.n_forks + 1) if n not in self.statuses}
                break
            ended, status = json.loads(message)
            self.statuses[ended] = status
        return self.statuses.get(fork)

    def close(self):
        "End the server, which may still be importing."
        self.socket.close()
        self.process.kill()
        self.process.wait()


class Fork:
    "A training process that a server forks, with the interface of `kdfast.study.process.Process`."

    def __init__(
        self,
        server: ForkServer,  # Which forks
        command: list[str],  # The command line; it begins with KDFAST
    ):
        self.stderr = tempfile.TemporaryFile('w+', errors='replace')
        self.server = server
        stdin, alive = os.pipe()
        self.alive = open(alive, 'wb')  # the run ends when this closes
        with open(stdin, 'rb'):
            self.number = server.fork(command[len(KDFAST) :], stdin, self.stderr.fileno())

    @property
    def ended(self):
        "Whether the process has ended."
        return self.server.status(self.number) is not None

    def terminate(self):
        "Ask the process to save a checkpoint and end."
        self.server.send_signal(self.number, signal.SIGTERM)

    def wait(self):
        "Wait until the process ends."
        self.server.status(self.number, wait=True)

    def kill(self):
        "End the process at once."
        self.server.send_signal(self.number, signal.SIGKILL)

    @property
    def failure(self):
        "The last line of stderr if the process failed, else an empty string."
        return failure_of(self.server.status(self.number), self.stderr)


# In the server


def serve(
    fd: int,  # File descriptor of the socket whose other end the study holds
):
    """Fork, send signals and report exit statuses until the study closes its end.

    Every fork returns from here, too.
    """
    with without_collection():
        for name in IMPORTED:
            import_module(name)
    connection = socket.socket(fileno=fd)
    forks: dict[int, int] = {}  # process ids of those that run, by number
    while True:
        if select.select([connection], [], [], POLL_SECONDS)[0]:
            message, fds, *_ = socket.recv_fds(connection, LARGEST_REQUEST, 2)
            if not message:
                return
            number, wanted = json.loads(message)
            if isinstance(wanted, int):
                if number in forks:
                    os.kill(forks[number], wanted)
            elif pid := os.fork():
                forks[number] = pid
                for of_fork in fds:
                    os.close(of_fork)
            else:
                connection.close()
                return run(wanted, *fds)
        report_ended(forks, connection)


def report_ended(
    forks: dict[int, int],  # Process ids by number; those that have ended are removed
    connection: socket.socket,  # To the study
):
    "Report the exit statuses of forks that have ended."
    for number, pid in list(forks.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del forks[number]
            connection.send(json.dumps([number, os.waitstatus_to_exitcode(status)]).encode())


def run(
    words: list[str],  # Arguments of kdfast
    stdin: int,  # File descriptor
    stderr: int,  # File descriptor
):
    "Run a command of kdfast in this fork, as in a new process."
    import numpy as np

    os.setsid()
    for fd, standard in ((stdin, 0), (stderr, 2)):
        os.dup2(fd, standard)
        os.close(fd)
    np.random.seed()  # else all forks would draw the same numbers; Python's own generator is seeded after each fork
    sys.argv = ['kdfast', *words]
    run_module('kdfast', run_name='__main__', alter_sys=True)


def receive(
    connection: socket.socket,  # To the server
) -> bytes:
    "Return the next message; empty if the other end is closed."
    try:
        return connection.recv(LARGEST_REQUEST)
    except ConnectionResetError:
        return b''
