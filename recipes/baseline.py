"The baseline: the student's network, trained on labels alone."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    student: str = 'thin',  # Network of the student
):
    learn = run.learner(run.build(student), optimizer)
    learn.fit_one_cycle(epochs, lr)
    return learn
