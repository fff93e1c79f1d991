"FitNets in one stage: train on hint and labels together (https://arxiv.org/abs/1412.6550)."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 6,  # Epochs
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    weight: float = 100.0,  # Weight of the distillation loss; the label loss has weight 1
    teacher: str = 'wide',  # Teacher network, or the directory of a run to use as the teacher
    teacher_epochs: int = 6,  # Epochs of the teacher; 0 uses --teacher NAME@FILE as it is
    student: str = 'thin',  # Student network
    hint: str = 'stage2:stage2',  # Layers, TEACHER_LAYER:STUDENT_LAYER (hint layer and guided layer)
):
    teacher = run.needs('teacher', network=teacher, epochs=teacher_epochs, optimizer=optimizer)
    net = run.build(student)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, Regressed(run.regressor(net, teacher, hint)), weight, hint))
    return learn
