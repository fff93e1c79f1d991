"Knowledge distillation: train on labels and soft targets (https://arxiv.org/abs/1503.02531)."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak learning rate of the one-cycle schedule
    optimizer: str = 'sgd',  # Optimizer
    T: float = 4.0,  # Temperature of both softmaxes
    alpha: float = 0.9,  # Weight of the soft loss; the hard loss has weight 1 - alpha
    teacher: str = 'wide',  # Teacher network, or the directory of a run to use as the teacher
    student: str = 'thin',  # Student network
):
    teacher = run.needs('teacher', network=teacher, optimizer=optimizer)
    learn = run.learner(run.build(student), optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Distill(teacher, T, alpha))
    return learn
