"DIST: probabilities that correlate with the teacher's, between classes and within (https://arxiv.org/abs/2205.10536)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    T: float = 1.0,  # Temperature of both softmaxes
    weight: float = 2.0,  # Of the loss, next to that on labels
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
):
    teacher, net = run.needs('teacher', network=teacher, optimizer=optimizer), run.build(student)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, partial(dist_loss, T=T), weight))
    return learn
