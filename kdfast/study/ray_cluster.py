"The runs of a study as tasks of an existing Ray cluster, whose machines share this one's files and installation."

import socket

import ray

from kdfast.core.errors import KdfastError
from kdfast.study.schedule import Process, stop_processes


@ray.remote
def train_there(command, threads):
    "On whichever machine Ray chose: why it has no result, or nothing"
    process = Process(command, threads)
    try:
        process.process.wait()
    finally:
        stop_processes([process])
    return process.failure


class Task:
    "One training process on the cluster."

    def __init__(
        self,
        command: list[str],  # The command line that trains
        threads: int,  # Of it; Ray gives it as many CPUs
    ):
        self.promise = train_there.options(num_cpus=threads, max_retries=0).remote(command, threads)

    @property
    def ended(self):
        return bool(ray.wait([self.promise], timeout=0)[0])

    @property
    def failure(self):
        try:
            return ray.get(self.promise)
        except ray.exceptions.RayError as e:
            return f'its machine failed it: {str(e).splitlines()[0]}'

    def ask_to_end(self):
        ray.cancel(self.promise)

    def wait(self):
        ray.wait([self.promise])

    def kill(self):
        ray.cancel(self.promise, force=True)


def join(
    address: str,  # Of the cluster: auto, or HOST:PORT
):
    "Connect to it. Raises KdfastError where none answers."
    host, _, port = address.partition(':')
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=5).close()  # Ray itself would ask for minutes
        ray.init(address=address, log_to_driver=False, logging_level='ERROR')
    except (OSError, RuntimeError, ValueError) as e:
        raise KdfastError(
            f'no Ray cluster at {address} ({str(e).splitlines()[0]}): start one with ray start --head'
        ) from e


def default_jobs(
    threads: int,  # Of each run
) -> int:
    "Runs side by side: as many as the cluster's CPUs allow."
    return max(1, int(ray.cluster_resources().get('CPU', 1)) // threads)
