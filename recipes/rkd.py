"Relational KD: distances and angles between images as the teacher has them (https://arxiv.org/abs/1904.05068)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    weight: float = 1.0,  # Of the loss, next to that on labels
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
    layers: str = 'head.1:head.1',  # Pairs of layers, TEACHER_LAYER:STUDENT_LAYER
):
    teacher, net = run.needs('teacher', network=teacher, optimizer=optimizer), run.build(student)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, rkd_loss, weight, layers))
    return learn
