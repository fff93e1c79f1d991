"Contrastive representation distillation: an image's teacher among those of other classes (https://arxiv.org/abs/1910.10699)."

from kdfast.all import *


def main(
    run: Run,  # This run: its folder, data and seed, and the runs it builds on
    epochs: int = 32,  # Epochs
    lr: float = 0.2,  # Peak of the one-cycle schedule
    optimizer: str = 'sgd',  # sgd; or muon, for about half as many epochs
    weight: float = 0.8,  # Of the loss, next to that on labels
    negatives: int = 1024,  # Images of other classes against each image; the paper has 16384
    teacher: str = 'wide',  # Network of the teacher, or the folder of a run whose network it is
    student: str = 'thin',  # Network of the student
    hint: str = 'head.1:head.1',  # Layers that meet: the teacher's features, the student's
):
    teacher, net = run.needs('teacher', network=teacher, optimizer=optimizer), run.build(student)
    (guided,), (channels,) = run.channels(net, teacher, hint)
    learn = run.learner(net, optimizer)
    contrast = CRD(guided, channels, labels=run.dls.train_ds.labels, negatives=negatives, seed=run.seed)
    learn.fit_one_cycle(epochs, lr, cbs=Match(teacher, contrast, weight, hint))
    return learn
