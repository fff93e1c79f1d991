"The baseline: the student's network, trained on labels alone."
from kdfast.all import *


def main(
    run:Run, # This run: its folder, data and seed, and the runs it builds on
    epochs:int=32, # Epochs
    lr:float=0.2, # Peak of the one-cycle schedule
    student:str='thin', # Network of the student
):
    learn = run.learner(run.build(student))
    learn.fit_one_cycle(epochs, lr)
    return learn
