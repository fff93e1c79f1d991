"Fine-tuning: train on labels, starting from features that were distilled without labels."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 6,  # Epochs on labels
    lr: float = 0.2,  # Peak learning rate of the one-cycle schedule
    optimizer: str = 'muon',  # Optimizer
    teacher: str = 'wide',  # Network with the features: NAME@pretrained, NAME@FILE or a run; others are trained first
    student: str = 'thin',  # Student network
    unlabeled: str = '',  # Directory or archive of further images, without labels, for the pretraining
):
    net = run.needs('pretrain', optimizer=optimizer, teacher=teacher, student=student, unlabeled=unlabeled)
    learn = run.learner(net, optimizer)
    learn.fit_one_cycle(epochs, lr)
    return learn
