"Hint and labels at once: the regressor and the whole student trained together, as most tools have FitNets (https://arxiv.org/abs/1412.6550)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    weight: float = 100.0,  # Of the loss, next to that on labels
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
    hint: str = 'stage2:stage2',  # Layers that meet: the teacher's hint layer, the student's guided layer
):
    teacher, net = run.needs('teacher', network=teacher, optimizer=optimizer), run.build(student)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, Regressed(run.regressor(net, teacher, hint)), weight, hint))
    return learn
