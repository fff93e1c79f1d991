"Experiment 1: a front that only the hint trained, frozen; everything behind it distilled."
from kdfast.all import *


def main(
    run:Run, # This run: its folder, data and seed, and the runs it builds on
    epochs:int=32, # Epochs of stage two
    lr:float=0.2, # Peak of the one-cycle schedule
    T:float=4., # Temperature of both softmaxes
    alpha:float=0.9, # Share of the soft loss
    student:str='thin', # Network of the student: thin, or matched, whose guided features have the hint's shape
    matrix:bool=False, # Put a regressor behind guided features that would need none, too
):
    teacher,net = run.needs('teacher'),run.needs('hint', student=student, matrix=matrix)
    learn = run.learner(net, splitter=front_back, train_bn=False)
    learn.freeze()
    learn.fit_one_cycle(epochs, lr, cbs=[Distill(teacher, T, alpha), BnFreeze()])
    return learn
