"The teacher, trained on labels."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 18,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    network: str = 'wide',  # Network of the teacher
):
    learn = run.learner(run.build(network), optimizer)
    learn.fit_one_cycle(epochs, lr)
    return learn
