"Stage one: train the student's front on the teacher's hint (https://arxiv.org/abs/1412.6550)."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 6,  # Epochs of stage one
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    teacher: str = 'wide',  # Teacher network, or the directory of a run to use as the teacher
    teacher_epochs: int = 16,  # Epochs of the teacher; 0 uses --teacher NAME@FILE as it is
    student: str = 'thin',  # Student network
    hint: str = 'stage2:stage2',  # Layers, TEACHER_LAYER:STUDENT_LAYER (hint layer and guided layer)
    matrix: bool = False,  # Add a regressor even if the shapes already match
):
    teacher = run.needs('teacher', network=teacher, epochs=teacher_epochs, optimizer=optimizer)
    net = run.build(student)
    learn = run.learner(run.guide(net, teacher, hint, matrix), optimizer, loss_func=hint_loss, metrics=None)
    learn.fit_one_cycle(epochs, lr, cbs=Hint(front(teacher, hint.split(':')[0])))
    return net  # only its front is trained: not a classifier yet
