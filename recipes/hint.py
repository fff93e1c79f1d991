"Stage one: the student's front learns the teacher's hint, through a regressor (https://arxiv.org/abs/1412.6550)."
from kdfast.all import *


def main(
    run:Run, # This run: its folder, data and seed, and the runs it builds on
    epochs:int=6, # Epochs of stage one
    lr:float=0.2, # Peak of the one-cycle schedule
    student:str='thin', # Network of the student: thin, or matched, whose guided features have the hint's shape
    matrix:bool=False, # Put a regressor behind guided features that would need none, too
):
    teacher,net = run.needs('teacher'),run.build(student)
    learn = run.learner(run.guide(net, teacher, matrix), loss_func=hint_loss, metrics=None)
    learn.fit_one_cycle(epochs, lr, cbs=Hint(front(teacher)))
    return net  # its front is trained, its back is new: nothing to classify with yet
