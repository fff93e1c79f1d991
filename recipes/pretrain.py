"Pretraining without labels: train the student's features on a frozen network's (https://arxiv.org/abs/2205.14141)."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 6,  # Epochs
    lr: float = 0.2,  # Peak learning rate of the one-cycle schedule
    optimizer: str = 'muon',  # Optimizer
    teacher: str = 'wide',  # Network with the features: NAME@pretrained, NAME@FILE or a run; others are trained first
    student: str = 'thin',  # Student network
    unlabeled: str = '',  # Directory or archive of further images, without labels
):
    teacher_features = run.embedding(run.frozen(teacher, optimizer))
    run.add_unlabeled(unlabeled)
    net = run.build(student)
    features = run.embedding(net)
    learn = run.learner(projected(features, teacher_features), optimizer, loss_func=feature_loss, metrics=None)
    learn.fit_one_cycle(epochs, lr, cbs=Hint(standardized(teacher_features)))
    return net  # its classifier is not trained yet
