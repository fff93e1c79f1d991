"""Train the runs of a study on a Ray cluster whose machines share the files and the installation of this one."""

import socket
from math import ceil, floor

import ray

from kdfast.core.errors import KdfastError
from kdfast.study.process import Process, stop_processes

CONNECT_SECONDS = 5  # Ray itself would try for minutes
STEPS_OF_SHARE = 10**4  # of a GPU, with which Ray counts


@ray.remote
def train_there(
    command,  # Words of the command line
    threads,  # Of the run
):
    "Run the command on the machine that Ray chose; return its failure, or an empty string."
    process = Process(command, threads)
    try:
        process.process.wait()
    finally:
        stop_processes([process])
    return process.failure


class Task:
    "A training process on the cluster, with the interface of `kdfast.study.process.Process`."

    def __init__(
        self,
        command: list[str],  # The command line
        threads: int,  # Ray reserves as many CPUs
        gpus: float = 0,  # Share of a GPU that Ray reserves, from `gpus_of_run`
    ):
        options = dict(num_cpus=threads, num_gpus=gpus or None, max_retries=0)
        self.result = train_there.options(**options).remote(command, threads)

    @property
    def ended(self):
        "Whether the process has ended."
        return bool(ray.wait([self.result], timeout=0)[0])

    @property
    def failure(self):
        "Why there is no result, or an empty string."
        try:
            return ray.get(self.result)
        except ray.exceptions.RayError as e:
            return f'its machine failed: {str(e).splitlines()[0]}'

    def terminate(self):
        "Ask the process to save a checkpoint and end."
        ray.cancel(self.result)

    def wait(self):
        "Wait until the process ends."
        ray.wait([self.result])

    def kill(self):
        "End the process at once."
        ray.cancel(self.result, force=True)


def join(
    address: str,  # Of the cluster: auto, or HOST:PORT
):
    "Connect to the cluster. Raises KdfastError if there is none."
    host, _, port = address.partition(':')
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level='ERROR')
    except (OSError, RuntimeError, ValueError) as e:
        raise KdfastError(
            f'no Ray cluster at {address} ({str(e).splitlines()[0]}): start one with ray start --head'
        ) from e


def default_jobs(
    threads: int,  # Of each run
) -> int:
    "Return the number of parallel runs: as CPUs of the cluster allow; one on each GPU, if it has any."
    resources = ray.cluster_resources()
    of_cpus = int(resources.get('CPU', 1)) // threads
    return max(1, min(of_cpus, int(resources.get('GPU', 0)) or of_cpus))


def gpus_of_run(
    jobs: int,  # Parallel runs
) -> float:
    """Return the share of a GPU that each run needs, so that runs share the GPUs of the cluster evenly.

    Without it, all runs of a machine would train on its first GPU, and some on machines that have none.
    """
    gpus = int(ray.cluster_resources().get('GPU', 0))
    return floor(STEPS_OF_SHARE / ceil(jobs / gpus)) / STEPS_OF_SHARE if gpus else 0
