"Decoupled KD: the target class and the others, each with its own weight (https://arxiv.org/abs/2203.08679)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    T: float = 4.0,  # Temperature of both softmaxes
    target: float = 1.0,  # Weight of the target class against all others, the paper's alpha
    others: float = 8.0,  # Weight of the other classes among each other, the paper's beta
    weight: float = 1.0,  # Of the loss, next to that on labels
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
):
    teacher, net = run.needs('teacher', network=teacher, optimizer=optimizer), run.build(student)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, partial(dkd_loss, T=T, alpha=target, beta=others), weight))
    return learn
