"Baseline: train the student on labels only."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 16,  # Epochs
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    student: str = 'thin',  # Student network
):
    learn = run.learner(run.build(student), optimizer)
    learn.fit_one_cycle(epochs, lr)
    return learn
