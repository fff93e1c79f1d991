"Variational information distillation: the student can tell what the teacher's features are (https://arxiv.org/abs/1904.05835)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    weight: float = 1.0,  # Of the loss, next to that on labels
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
    hint: str = 'stage2:stage2',  # Layers that meet: the teacher's hint layer, the student's guided layer
):
    teacher, net = run.needs('teacher', network=teacher, optimizer=optimizer), run.build(student)
    (guided,), (channels,) = run.channels(net, teacher, hint)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, VID(guided, channels), weight, hint))
    return learn
