"CRD: contrast the teacher's features with those of other classes (https://arxiv.org/abs/1910.10699)."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 6,  # Epochs
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    weight: float = 0.8,  # Weight of the distillation loss; the label loss has weight 1
    negatives: int = 1024,  # Negatives (images of other classes) per image; the paper uses 16384
    teacher: str = 'wide',  # Teacher network, or the directory of a run to use as the teacher
    teacher_epochs: int = 6,  # Epochs of the teacher; 0 uses --teacher NAME@FILE as it is
    student: str = 'thin',  # Student network
    hint: str = 'head.1:head.1',  # Layers, TEACHER_LAYER:STUDENT_LAYER
):
    teacher = run.needs('teacher', network=teacher, epochs=teacher_epochs, optimizer=optimizer)
    net = run.build(student)
    (guided,), (channels,) = run.channels(net, teacher, hint)
    learn = run.learner(net, optimizer)
    contrast = CRD(guided, channels, labels=run.dls.train_ds.labels, negatives=negatives, seed=run.seed)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, contrast, weight, hint))
    return learn
