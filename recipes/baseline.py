"Baseline: train the student on labels only."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak learning rate of the one-cycle schedule
    optimizer: str = 'sgd',  # Optimizer
    student: str = 'thin',  # Student network
):
    learn = run.learner(run.build(student), optimizer)
    learn.fit_one_cycle(epochs, lr)
    return learn
