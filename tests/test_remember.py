from collections import Counter

import pytest
import torch
from conftest import beside, equal, weights
from fastai.vision.all import Callback, CrossEntropyLossFlat, Learner, MixUp, ProgressCallback, noop
from kdfast.distill import Distill
from kdfast.folding import faster
from kdfast.loader import loaders
from kdfast.losses import at_loss, dist_loss
from kdfast.match import Match
from kdfast.models import thin, wide
from kdfast.remember import Remember, read_outputs


CHECKED = 2 # passes in a fit that asks, before its first batch: the original's and that of its faster copy


class Counting(torch.nn.Module):
    "A teacher that counts how often it, or a copy of it, is asked"
    times = Counter()
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.net,self.key = wide(3),id(self)
    def forward(self, x):
        self.times[self.key] += 1
        return self.net(x)
    @property
    def asked(self): return self.times[self.key]


def fit(data, teacher, *cbs, epochs=2, taught=None):
    torch.manual_seed(0)
    learn = Learner(loaders(data), thin(3), CrossEntropyLossFlat(), cbs=[*cbs])
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    class Epoch(Callback):
        def before_epoch(self): self.dls.train.epoch = self.epoch
    learn.fit(epochs, .01, cbs=[taught() if taught else Distill(teacher), Epoch()])
    return {name: t.clone() for name,t in learn.model.state_dict().items()}


def test_the_second_run_asks_nothing_and_ends_with_the_same_bits(data, tmp_path):
    file,teacher = tmp_path/'outputs.npz',Counting()
    without = fit(data, teacher)
    assert teacher.asked == CHECKED + 2*(9 + 1)
    first = fit(data, teacher, Remember(file, teacher))
    assert teacher.asked == 2*CHECKED + 20 + 2*9 + 1 # the validation batch of the second epoch is known already
    second = fit(data, teacher, Remember(file, teacher))
    assert teacher.asked == 2*CHECKED + 39
    assert equal(without, first) and equal(first, second)


def test_what_is_kept_is_what_the_teacher_says(data, tmp_path):
    from kdfast.remember import digest
    file,teacher = tmp_path/'outputs.npz',Counting()
    fit(data, teacher, Remember(file, teacher), epochs=1)
    dls = loaders(data)
    teacher = faster(teacher.eval(), dls.one_batch()[:1])
    for x,_ in [*dls.train, *dls.valid]:
        with torch.no_grad(): assert (read_outputs(file)[digest(torch.Tensor(x))] == teacher(torch.Tensor(x))).all()


def test_mixed_images_are_other_images(data, tmp_path):
    file,teacher = tmp_path/'outputs.npz',Counting()
    fit(data, teacher, Remember(file, teacher))
    before = teacher.asked
    fit(data, teacher, Remember(file, teacher), MixUp())
    assert teacher.asked == before + CHECKED + 2*9


def test_losses_of_logits_share_what_is_known(data, tmp_path):
    "With Distill, too; a loss of features needs the teacher's inside, and asks"
    file,teacher = tmp_path/'outputs.npz',Counting()
    def match(): return Match(teacher, dist_loss, .1)
    without = fit(data, teacher, taught=match)
    fit(data, teacher, Remember(file, teacher))
    before = teacher.asked
    assert equal(without, fit(data, teacher, Remember(file, teacher), taught=match)) and teacher.asked == before
    file.unlink()
    fit(data, teacher, Remember(file, teacher), taught=lambda: Match(teacher, at_loss, .1, 'net.stage2:stage2'))
    assert teacher.asked == before + CHECKED + 2*(9 + 1) and not file.exists()


def test_another_teachers_outputs_are_not_taken(data, tmp_path):
    file,teacher,other = tmp_path/'outputs.npz',Counting(),Counting()
    fit(data, teacher, Remember(file, teacher))
    fit(data, other, Remember(file, teacher))
    assert other.asked == CHECKED + 20


@pytest.mark.parametrize('recipe', ['kd', 'exp1', 'exp2'])
def test_a_recipe_ends_equal_without_the_outputs(study, kdfast, images, tmp_path, recipe):
    "exp1 was the first to ask the teacher; here every recipe asks afresh"
    beside(study, tmp_path, 'teacher', 'hint')
    (tmp_path/'tiny'/'teacher'/'0'/'outputs.npz').unlink()
    assert kdfast('run', recipe, '--data', images, '--runs', tmp_path).status == 0
    assert equal(weights(tmp_path/'tiny'/recipe/'0'), weights(study/recipe/'0'))
