"A study before it is trained: its tasks, their costs, and the options that its runs share."

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

from kdfast.cli.app import err, status
from kdfast.cli.options import DataOptions, StudyOptions, changed_flags
from kdfast.runs.recipes import Recipe


@dataclass(frozen=True)
class PlannedStudy:
    "Recipes on a data set, and how they are trained on this machine."

    wanted: Sequence[tuple[Recipe, dict]]  # Recipes with their arguments
    data: Any  # kdfast.data.dataset.Data, which imports numpy
    images: DataOptions  # As given
    training: StudyOptions  # As given
    start: Callable  # Starts its processes, from `run_starter`
    start_run: Callable | None = None  # Starts its runs, if not as other processes
    checked: set = field(default_factory=set)  # Paths of finished runs that are known to be those of the study

    @property
    def jobs(self) -> int:
        "Number of parallel runs."
        from kdfast.study.process import default_jobs

        return self.training.jobs or default_jobs(self.training.threads)

    def parallel(self):  # kdfast.study.jobs.Jobs
        "Return the number of parallel runs as it changes: more where GPUs have room, unless it was given."
        from kdfast.study.gpu_use import use_of
        from kdfast.study.gpus import visible_gpus
        from kdfast.study.jobs import Jobs
        from kdfast.study.process import most_jobs

        gpus = [] if self.training.jobs else visible_gpus()
        return Jobs(self.jobs, most_jobs(self.training.threads), partial(use_of, gpus) if gpus else None)

    @property
    def common(self) -> list[str]:
        "Options of all runs."
        return [*changed_flags(self.images), *changed_flags(self.training, only=['trust_code', 'runs', 'resplit'])]

    @property
    def class_sizes(self) -> list[int]:
        "Validation images of each class; of several labels the number of all images."
        import numpy as np

        labels = self.data.valid[1]
        return [len(labels)] if self.data.several else np.bincount(labels, minlength=len(self.data.classes)).tolist()

    def tasks(
        self,
        seeds: int,  # Of every recipe
    ) -> list:  # kdfast.study.tasks.Task
        "Return the runs of the first seeds, each after what it needs."
        from kdfast.study.tasks import plan

        return plan(self.wanted, range(seeds), self.data.name, self.training.runs)

    def check_finished(
        self,
        seeds: int,  # Of every recipe
    ):
        "Raise KdfastError if a finished run of the first seeds is not the one that the study would train."
        from kdfast.study import schedule

        new = [task for task in self.tasks(seeds) if task.folder.finished and task.folder.path not in self.checked]
        with status('checking the finished runs'):
            schedule.check_finished(new, self.common, self.training.threads, self.start)
        self.checked.update(task.folder.path for task in new)

    def costs(
        self,
        seeds: int,  # Of every recipe
    ) -> dict:  # kdfast.runs.cost.RunCost by the name of the recipe's directory
        "Time a few steps of every recipe. Raises KdfastError for one that cannot be trained."
        from kdfast.study.timing import measure_costs

        self.check_finished(seeds)
        with status('timing a few steps of each recipe'):
            return measure_costs(self.tasks(seeds), self.common, self.training.threads, self.start)

    def trainer(
        self,
        measured: bool = False,  # Whether `costs` has rehearsed the recipes in this call
        deadline: float = inf,  # Value of time.monotonic() at which runs are stopped
    ) -> Callable:  # Trains the first seeds, as `train_until_decided` needs it
        "Return the function that trains the study."
        from kdfast.study import schedule

        common, jobs, threads = self.common, self.parallel(), self.training.threads

        def train(seeds, rehearsed=False):
            self.check_finished(seeds)
            tasks = self.tasks(seeds)
            if not (rehearsed or measured):
                with status('rehearsing the recipes'):
                    schedule.rehearse_tasks(tasks, common, jobs.number, threads, self.start)
            return schedule.run_tasks(tasks, common, jobs, threads, err, self.start_run or self.start, deadline)

        return train


def declared_before(
    design,  # kdfast.analysis.design.Declared, as the options describe it
    runs_dir,  # Directory of the runs
    data: str,  # Name of the data set
):  # kdfast.analysis.design.Declared, or None
    "Return the design of the same study if it was declared before."
    from kdfast.analysis.design import design_file, read_design

    file = design_file(runs_dir, data, design.against, design.recipes)
    return read_design(file) if file.exists() else None
