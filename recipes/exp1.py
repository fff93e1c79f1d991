"Experiment 1: a front that only the hint trained, frozen; everything behind it distilled."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs of stage two
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    T: float = 4.0,  # Temperature of both softmaxes
    alpha: float = 0.9,  # Share of the soft loss
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
    hint: str = 'stage2:stage2',  # Layers that meet: the teacher's hint layer, the student's guided layer
    matrix: bool = False,  # Put a regressor behind guided features that would need none, too
):
    teacher, net = (
        run.needs('teacher', network=teacher, optimizer=optimizer),
        run.needs('hint', teacher=teacher, student=student, hint=hint, matrix=matrix, optimizer=optimizer),
    )
    learn = run.learner(net, optimizer, splitter=run.front_back(hint), train_bn=False)
    learn.freeze()
    learn.fit_one_cycle(epochs, lr, cbs=[Distill(teacher, T, alpha), FreezeNorm(hint.split(':')[1])])
    return learn
