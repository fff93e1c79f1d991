"Stage one: the student's front learns the teacher's hint, through a regressor (https://arxiv.org/abs/1412.6550)."
from kdfast.all import *


def main(
    run:Run, # This run: its folder, data and seed, and the runs it builds on
    epochs:int=6, # Epochs of stage one
    lr:float=0.2, # Peak of the one-cycle schedule
):
    teacher,student = run.needs('teacher'),run.build(thin)
    matrix = regressor(front(student), front(teacher), run.dls.one_batch()[0])
    learn = run.learner(nn.Sequential(front(student), matrix), loss_func=hint_loss, metrics=None)
    learn.fit_one_cycle(epochs, lr, cbs=Hint(front(teacher)))
    return student  # its front is trained, its back is new: nothing to classify with yet
