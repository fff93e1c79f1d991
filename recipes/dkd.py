"Decoupled KD: weigh target and non-target classes (https://arxiv.org/abs/2203.08679)."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 6,  # Epochs
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    T: float = 4.0,  # Temperature of both softmaxes
    target: float = 1.0,  # Weight of TCKD, the target class against all others (alpha in the paper)
    others: float = 8.0,  # Weight of NCKD, the non-target classes (beta in the paper)
    weight: float = 1.0,  # Weight of the distillation loss; the label loss has weight 1
    teacher: str = 'wide',  # Teacher network, or the directory of a run to use as the teacher
    teacher_epochs: int = 6,  # Epochs of the teacher; 0 uses --teacher NAME@FILE as it is
    student: str = 'thin',  # Student network
):
    teacher = run.needs('teacher', network=teacher, epochs=teacher_epochs, optimizer=optimizer)
    net = run.build(student)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, partial(dkd_loss, T=T, alpha=target, beta=others), weight))
    return learn
