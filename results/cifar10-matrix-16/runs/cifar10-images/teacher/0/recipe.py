"Teacher: train the teacher on labels."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 16,  # Epochs; 0 uses the trained network of --network NAME@FILE as it is
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    network: str = 'wide',  # Teacher network
):
    if epochs == 0:
        return run.as_given(network)
    learn = run.learner(run.build(network), optimizer)
    learn.fit_one_cycle(epochs, lr)
    return learn
