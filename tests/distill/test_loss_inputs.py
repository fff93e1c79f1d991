"Indices of images that a loss receives, where the data set leaves some out."

import pytest
import torch
from fastai.data.load import DataLoader, SkipItemException
from fastai.vision.all import CrossEntropyLossFlat, DataLoaders, Learner
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.distill.losses.logits import kd_loss
from kdfast.distill.match import Match


class Numbered:
    "The label of an item is its index, modulo 4"

    def __init__(self, left_out=()):
        self.x, self.left_out = torch.randn(24, 8), left_out

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if i in self.left_out:
            raise SkipItemException()
        return self.x[i], torch.tensor(i % 4)


def learner(data, workers):
    train = DataLoader(data, bs=4, shuffle=True, drop_last=True, num_workers=workers)
    return Learner(DataLoaders(train, DataLoader(data, bs=4)), nn.Linear(8, 4), CrossEntropyLossFlat())


def of_index(student, teacher, y, index):
    assert torch.equal(y, index % 4)
    return (student - teacher).pow(2).mean()


@pytest.mark.parametrize('workers', [0, 2])
def test_indices_are_right_or_refused_where_items_are_left_out(workers):
    learner(Numbered(), workers).fit(1, 0.01, cbs=Match(nn.Linear(8, 4), of_index))
    learn = learner(Numbered([5]), workers)
    with pytest.raises(KdfastError, match='leaves out item 5 '):
        learn.fit(1, 0.01, cbs=Match(nn.Linear(8, 4), of_index))
    assert 'do_item' not in vars(learn.dls.train)
    learn.fit(1, 0.01, cbs=Match(nn.Linear(8, 4), kd_loss))  # needs no indices
