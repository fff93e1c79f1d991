"Experiment 1: freeze the front from stage one, distill the back."

from kdfast.all import *


def main(
    run: Run,  # This run: its directory, data and seed, and the runs it depends on
    epochs: int = 16,  # Epochs of stage two
    lr: float = 0.2,  # Peak learning rate of sgd; muon takes a tenth of it for convolutions, adamw a hundredth
    optimizer: str = 'muon',  # Optimizer
    T: float = 4.0,  # Temperature of both softmaxes
    alpha: float = 0.9,  # Weight of the soft loss; the hard loss has weight 1 - alpha
    teacher: str = 'wide',  # Teacher network, or the directory of a run to use as the teacher
    teacher_epochs: int = 16,  # Epochs of the teacher; 0 uses --teacher NAME@FILE as it is
    student: str = 'thin',  # Student network
    hint: str = 'stage2:stage2',  # Layers, TEACHER_LAYER:STUDENT_LAYER (hint layer and guided layer)
    matrix: bool = False,  # Add a regressor even if the shapes already match
):
    teacher_net = run.needs('teacher', network=teacher, epochs=teacher_epochs, optimizer=optimizer)
    net = run.needs(
        'hint',
        teacher=teacher,
        teacher_epochs=teacher_epochs,
        student=student,
        hint=hint,
        matrix=matrix,
        optimizer=optimizer,
    )
    learn = run.learner(net, optimizer, splitter=run.front_back(hint), train_bn=False)
    learn.freeze()
    learn.fit_one_cycle(epochs, lr, cbs=[Distill(teacher_net, T, alpha), FreezeNorm(hint.split(':')[1])])
    return learn
