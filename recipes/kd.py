"The student, distilled from the teacher's softened outputs, without a hint (https://arxiv.org/abs/1503.02531)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    T: float = 4.0,  # Temperature of both softmaxes
    alpha: float = 0.9,  # Share of the soft loss
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
):
    teacher = run.needs('teacher', network=teacher, optimizer=optimizer)
    learn = run.learner(run.build(student), optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Distill(teacher, T, alpha))
    return learn
