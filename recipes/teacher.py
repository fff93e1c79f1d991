"The teacher: the wide network, trained on labels."
from kdfast.all import *


def main(
    run:Run, # This run: its folder, data and seed, and the runs it builds on
    epochs:int=18, # Epochs
    lr:float=0.2, # Peak of the one-cycle schedule
):
    learn = run.learner(run.build(wide))
    learn.fit_one_cycle(epochs, lr)
    return learn
