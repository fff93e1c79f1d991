"Knowledge distillation: train on labels and soft targets (https://arxiv.org/abs/1503.02531)."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 6,  # Epochs
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    T: float = 4.0,  # Temperature of both softmaxes
    alpha: float = 0.9,  # Weight of the soft loss; the hard loss has weight 1 - alpha
    teacher: str = 'wide',  # Teacher network, or the directory of a run to use as the teacher
    teacher_epochs: int = 6,  # Epochs of the teacher; 0 uses --teacher NAME@FILE as it is
    student: str = 'thin',  # Student network
):
    teacher = run.needs('teacher', network=teacher, epochs=teacher_epochs, optimizer=optimizer)
    learn = run.learner(run.build(student), optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Distill(teacher, T, alpha))
    return learn
