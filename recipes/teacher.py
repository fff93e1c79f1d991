"Teacher: train the teacher on labels."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 18,  # Epochs
    lr: float = 0.2,  # Peak learning rate of the one-cycle schedule
    optimizer: str = 'sgd',  # Optimizer
    network: str = 'wide',  # Teacher network
):
    learn = run.learner(run.build(network), optimizer)
    learn.fit_one_cycle(epochs, lr)
    return learn
