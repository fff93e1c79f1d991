"Stage one: the student's front learns the teacher's hint, through a regressor (https://arxiv.org/abs/1412.6550)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 6,  # Epochs of stage one
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
    hint: str = 'stage2:stage2',  # Layers that meet: the teacher's hint layer, the student's guided layer
    matrix: bool = False,  # Put a regressor behind guided features that would need none, too
):
    teacher, net = run.needs('teacher', network=teacher, optimizer=optimizer), run.build(student)
    learn = run.learner(run.guide(net, teacher, hint, matrix), optimizer, loss_func=hint_loss, metrics=None)
    learn.fit_one_cycle(epochs, lr, cbs=Hint(front(teacher, hint.split(':')[0])))
    return net  # its front is trained, its back is new: nothing to classify with yet
