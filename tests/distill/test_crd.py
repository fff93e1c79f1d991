"CRD: values of torchdistill, its memory and its negatives."

from operator import itemgetter

import pytest
import torch
from fastai.vision.all import CrossEntropyLossFlat, DataBlock, IndexSplitter, Learner
from loss_modules import LABELS, N, close, crd, random, seeded
from taught_learners import learner, net
from torch import nn, tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchdistill.losses.mid_level import CRDLoss

from kdfast.core.errors import KdfastError
from kdfast.data.dataloaders import loaders
from kdfast.distill.losses.crd import CRD, hash_rows, similarities
from kdfast.distill.match import Match
from kdfast.training.small import few_batches

# Contrastive representation distillation


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_contrast_is_torchdistills_over_three_steps_with_its_memory_and_gradients(dtype):
    "With our embeddings and negatives, torchdistill gives the same loss, gradients and memories in each step"
    ours, theirs = (
        crd().to(dtype),
        CRDLoss('z', 'empty', 'z', input_size=8, output_size=N, num_negative_samples=16, num_samples=N),
    )
    theirs.double()
    theirs.memory_v1.copy_(ours.guided_memory), theirs.memory_v2.copy_(ours.hint_memory)
    theirs.params[1] = 0.07  # written in float32 by its constructor
    embeds = [seeded(nn.Linear, 12, 8).double(), seeded(nn.Linear, 20, 8).double()]
    for mine, other in zip((ours.embed_guided, ours.embed_hint), embeds):
        other.load_state_dict(mine.state_dict())
    for step in range(3):
        index = torch.arange(step, N, 5)
        guided, hint = (
            random(len(index), 12, seed=step).to(dtype).requires_grad_(),
            random(len(index), 20, seed=9 + step).to(dtype),
        )
        also = guided.detach().double().requires_grad_()
        z, h = (nn.functional.normalize(embed(x)) for embed, x in zip(embeds, (also, hint.double())))
        supplement = dict(pos_idx=index, contrast_idx=torch.cat([index[:, None], ours.draw(LABELS[index])], 1))
        expected = theirs(dict(z=dict(output=z), empty=dict(input=supplement)), dict(z=dict(output=h)))
        value = ours(guided, hint, index)
        ours.zero_grad(), [e.zero_grad() for e in embeds]
        value.backward(), expected.backward()
        close(value, expected.squeeze()), close(guided.grad, also.grad)
        for mine, other in zip((ours.embed_guided, ours.embed_hint), embeds):
            close(mine.weight.grad, other.weight.grad), close(mine.bias.grad, other.bias.grad)
        close(ours.guided_memory, theirs.memory_v1), close(ours.hint_memory, theirs.memory_v2)


def test_negatives_are_of_other_classes_and_all_of_them_alike():
    draws = crd(negatives=26_000).draw(tensor([0, 3]))
    for label, drawn in zip((0, 3), draws):
        times = torch.bincount(drawn, minlength=N)
        others = LABELS != label
        assert (times[~others] == 0).all()
        expected = 26_000 / others.sum()
        assert (times[others] - expected).abs().max() < 5 * expected.sqrt()


@pytest.mark.parametrize('labels', [[0, 1] * 4, [7, 7, 7, 7, 7, -2, 7, 7], [*range(8)]])
def test_the_first_step_knows_all_classes(labels):
    "Whatever numbers stand for them, and however many images they have"
    labels = tensor(labels)
    drawn = crd(labels, negatives=1000).draw(labels)
    assert (labels[drawn] != labels[:, None]).all()
    for own, row in zip(labels, drawn):
        assert set(row.tolist()) == set((labels != own).nonzero()[:, 0].tolist())


def test_without_labels_classes_are_known_once_their_images_were_seen():
    module, index = CRD(12, 20, 8, dim=8, negatives=1000), torch.arange(8)
    module(random(8, 12), random(8, 20), index, index % 2)
    assert (module.draw(tensor([0, 1])) % 2 == tensor([[1], [0]])).all()
    again = CRD(12, 20, 8, dim=8)
    again.load_state_dict(module.state_dict())
    assert (again.labels == index % 2).all() and 'labels' not in crd().state_dict()
    with pytest.raises(KdfastError, match='all 8 images'):
        module(random(8, 12), random(8, 20), index, index * 0)
    with pytest.raises(ValueError, match='labels of all training images'):
        CRD(12, 20)


def test_negatives_follow_from_seed_and_step_and_go_on_where_a_saved_module_stopped():
    one, other, index = crd(), crd(), torch.arange(4)
    one(random(4, 12), random(4, 20), index)
    saved = {name: x.clone() for name, x in one.state_dict().items()}
    torch.manual_seed(99)  # what else draws random numbers does not matter
    other.load_state_dict(saved)
    a, b = (m(random(4, 12, seed=3), random(4, 20, seed=4), index + 4) for m in (one, other))
    assert a == b and (one.guided_memory == other.guided_memory).all()
    assert (crd().draw(LABELS[:4]) != one.draw(LABELS[:4])).any() and (
        crd().draw(LABELS[:4]) != crd(seed=1).draw(LABELS[:4])
    ).any()


def test_one_class_has_nothing_to_contrast():
    with pytest.raises(KdfastError, match='all 32 images'):
        crd([2] * 32)


def test_the_memory_moves_half_way_to_what_is_seen_and_nowhere_else():
    module, index = crd(), tensor([7, 3])
    before, guided, hint = module.guided_memory.clone(), random(2, 12), random(2, 20)
    module(guided, hint, index)
    embedding = nn.functional.normalize(module.embed_guided(guided))
    torch.testing.assert_close(module.guided_memory[index], nn.functional.normalize(before[index] + embedding).detach())
    rest = [i for i in range(N) if i not in (7, 3)]
    assert (module.guided_memory[rest] == before[rest]).all()


def test_contrast_draws_an_image_to_its_partner_and_away_from_other_classes():
    "Embeddings that are the student's and the teacher's as they are: a step down the gradient nears the partner"
    module, index = CRD(8, 8, dim=8, negatives=64, labels=LABELS), torch.arange(8)
    for embed in (module.embed_guided, module.embed_hint):
        with torch.no_grad():
            embed.weight.copy_(torch.eye(8)), embed.bias.zero_()
    module.hint_memory.copy_(nn.functional.normalize(random(N, 8)))
    guided = random(8, 8, seed=1).requires_grad_()
    module(guided, random(8, 8, seed=2), index).backward()
    partner = nn.functional.normalize(random(N, 8))[:8]

    def nearness(x):
        return (nn.functional.normalize(x) * partner).sum(1)

    assert (nearness(guided - 0.01 * guided.grad) > nearness(guided)).all()


def test_a_memory_of_many_images_is_not_multiplied_whole():
    "What is computed for chosen rows alone is the same, and so is its gradient"
    memory, pairs = random(500, 8), torch.randint(500, (20, 5), generator=torch.Generator().manual_seed(3))

    def value_and_gradient(compute):
        anchor = random(20, 8, seed=1).requires_grad_()
        value = compute(anchor)
        return value, *torch.autograd.grad((value * random(20, 5, seed=2)).sum(), anchor)

    largest = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **kwargs or {})
            if isinstance(made, torch.Tensor):
                largest.append(made.numel())
            return made

    with Sizes():
        found = value_and_gradient(lambda anchor: similarities(anchor, memory, pairs))
    expected = value_and_gradient(lambda anchor: (anchor @ memory.mT).gather(1, pairs))
    for ours, whole in zip(found, expected):
        torch.testing.assert_close(ours, whole)
    assert max(largest) <= memory.numel() < 20 * 500


def test_random_numbers_are_spread_evenly_and_apart_for_every_place_step_and_key():
    draws = torch.stack([hash_rows(100, 50, key, tensor(step)) for key in (0, 7) for step in (0, 1)]).double() / 2**32
    assert draws.min() >= 0 and draws.max() < 1
    for part in draws:  # 5,000 numbers each; four standard deviations
        assert (
            abs(part.mean() - 0.5) < 4 / (12 * 5000) ** 0.5
            and abs((part > 0.9).double().mean() - 0.1) < 4 * (0.09 / 5000) ** 0.5
        )
    correlation = torch.corrcoef(draws.flatten(1)) - torch.eye(4)
    assert correlation.abs().max() < 4 / 5000**0.5 and abs(torch.corrcoef(draws[0, :, :2].mT)[0, 1]) < 0.4
    assert hash_rows(1, 3, 7, tensor(2))[0].tolist() == [by_hand(place, 7, 2) for place in range(3)]


def by_hand(place, key, step):
    "The same in Python's integers"

    def mix(x):
        for shift, factor in (16, 0x21F0AAAD), (15, 0x735A2D97):
            x = (x ^ x >> shift) * factor % 2**32
        return x ^ x >> 15

    return mix(mix(place) ^ mix(mix(step) ^ key))


def test_labels_of_a_learners_data_and_the_number_of_images_are_those_of_the_fit():
    "The labels of fastai's data blocks, as the documentation takes them"
    images = [[x, int(y)] for x, y in zip(torch.rand(24, 3, 8, 8), torch.arange(24) % 3)]
    block = DataBlock(get_x=itemgetter(0), get_y=itemgetter(1), splitter=IndexSplitter([0, 1, 2, 3]))
    dls = block.dataloaders(images, bs=8, num_workers=0, device='cpu')
    labels = [int(y) for y in dls.train_ds.tls[1]]
    assert labels == [i % 3 for i in range(4, 24)]
    learn = learner()
    learn.dls = dls
    learn.fit(1, 0.01, cbs=Match(net(), CRD(8, 8, dim=4, labels=labels, negatives=8), layers='7:7'))
    for given in (dict(n=10), dict(n=24), dict(labels=labels + labels)):
        with pytest.raises(KdfastError, match='CRD was created for .* training images, found 20'):
            learn.fit(1, 0.01, cbs=Match(net(), CRD(8, 8, dim=4, negatives=8, **given), layers='7:7'))


def test_a_loader_may_take_some_images_of_the_data_set(data):
    "As in a rehearsal; indices are those in the data set"
    dls = few_batches(loaders(data))
    assert dls.train.n < len(data.train[1])
    learn = Learner(dls, net(), CrossEntropyLossFlat())
    contrast = CRD(8, 8, dim=4, labels=dls.train_ds.labels, negatives=8)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 0.01, cbs=Match(net(), contrast, layers='7:7'))
