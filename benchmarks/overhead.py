"""Measure what Distill, Match and Hint add to a fastai Learner's step, beyond the teacher's own forward pass.

python benchmarks/overhead.py [--batches 30] [--rounds 7] [--threads 2]

Each round times, in a changing order, the Learner alone, the teacher alone (folded, without gradient), and the Learner
with the callback. Prints with/(alone + teacher) − 1, in float32, for batches of 128 random 32×32 images in memory.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kdfast.distill.distill import Distill
from kdfast.distill.hint import Hint
from kdfast.distill.losses.features import at_loss, hint_loss
from kdfast.distill.match import Match
from kdfast.distill.regressor import regressor
from kdfast.models.folding import faster
from kdfast.models.front import front
from kdfast.models.study_networks import thin, wide

import torch
from fastai.vision.all import SGD, CrossEntropyLossFlat, DataLoaders, Learner, ProgressCallback, noop


class Batches:
    "What a Learner needs of a loader, and nothing that costs time"

    device = torch.device('cpu')

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)

    def to(self, device):
        return self


def learner(model, batches, loss):
    learn = Learner(DataLoaders(Batches(batches), Batches([])), model, loss, opt_func=SGD, lr=0.001)
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn


def fit(learn, cbs=()):
    began = perf_counter()
    learn.fit(1, cbs=list(cbs))
    return perf_counter() - began


@torch.no_grad()
def ask(teacher, batches):
    began = perf_counter()
    for x, _ in batches:
        teacher(x)
    return perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (
        parser.add_argument('--batches', type=int, default=30),
        parser.add_argument('--rounds', type=int, default=7),
        parser.add_argument('--threads', type=int, default=2),
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads), torch.manual_seed(0)

    def last(net):
        return net.to(memory_format=torch.channels_last)

    images = [last(torch.randn(128, 3, 32, 32)) for _ in range(args.batches)]
    labelled = [(x, torch.randint(10, (128,))) for x in images]
    teacher, student = last(wide(10)), last(thin(10))
    matrix = torch.nn.Sequential(front(student), last(regressor(front(student), front(teacher), images[0])))
    with torch.no_grad():
        hinted = [(x, front(teacher).eval()(x)) for x in images]
    pairs = {
        'Distill': (learner(student, labelled, CrossEntropyLossFlat()), teacher, labelled, Distill(teacher)),
        'Match': (
            learner(student, labelled, CrossEntropyLossFlat()),
            teacher,
            labelled,
            Match(teacher, at_loss, layers='stage1:stage1,stage2:stage2,stage3:stage3'),
        ),
        'Hint': (learner(matrix, hinted, hint_loss), front(teacher), hinted, Hint(front(teacher))),
    }
    for name, (learn, network, batches, callback) in pairs.items():
        quick, added = faster(network.eval(), batches[0][:1]), []
        for turn in range(args.rounds + 1):  # the first warms up
            ways = [
                ('alone', lambda: fit(learn)),
                ('teacher', lambda: ask(quick, batches)),
                ('with', lambda: fit(learn, [callback])),
            ]
            took = {what: time() for what, time in ways[turn % 3 :] + ways[: turn % 3]}
            if turn:
                added.append(took['with'] / (took['alone'] + took['teacher']) - 1)
        spread = f'{min(added):+.1%} … {max(added):+.1%}'
        print(f'{name:<8} adds {median(added):+.1%} ({spread}) over {args.rounds} rounds')


if __name__ == '__main__':
    main()
