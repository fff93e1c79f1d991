"Function matching: distill on MixUp images, without labels (https://arxiv.org/abs/2106.05237)."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 6,  # Epochs
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    T: float = 1.0,  # Temperature of both softmaxes
    teacher: str = 'wide',  # Teacher network, or the directory of a run to use as the teacher
    teacher_epochs: int = 6,  # Epochs of the teacher; 0 uses --teacher NAME@FILE as it is
    student: str = 'thin',  # Student network
):
    teacher = run.needs('teacher', network=teacher, epochs=teacher_epochs, optimizer=optimizer)
    net = run.build(student)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=[MixUp(alpha=1.0), Distill(teacher, T, alpha=1.0)])
    return learn
