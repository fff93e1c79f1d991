"ReviewKD: each stage of the teacher teaches the student's stages up to it (https://arxiv.org/abs/2104.09044)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    weight: float = 1.0,  # Of the loss, next to that on labels
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
    layers: str = 'stage1:stage1,stage2:stage2,stage3:stage3',  # Pairs of layers, TEACHER_LAYER:STUDENT_LAYER
):
    teacher, net = run.needs('teacher', network=teacher, optimizer=optimizer), run.build(student)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, ReviewKD(*run.channels(net, teacher, layers)), weight, layers))
    return learn
