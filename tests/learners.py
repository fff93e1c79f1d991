"""Small fastai Learners of every kind of task, on generated data."""

import pandas as pd
import torch
from fastai.losses import BCEWithLogitsLossFlat, CrossEntropyLossFlat, L1LossFlat
from fastai.tabular.all import Categorify, CategoryBlock, FillMissing, Normalize, TabularDataLoaders, tabular_learner
from fastai.text.all import (
    AWD_LSTM,
    LMDataLoader,
    awd_lstm_clas_config,
    awd_lstm_lm_config,
    language_model_learner,
    text_classifier_learner,
)
from fastai.vision.all import DataLoaders, ProgressCallback, noop, unet_learner, vision_learner
from torch import nn

SIDE, N, BATCH, CLASSES = 32, 16, 8, 3
RNN = dict(emb_sz=12, n_hid=16, n_layers=2)


def pairs(x, y):
    data = list(zip(x, y))
    return DataLoaders.from_dsets(data, data, bs=BATCH, num_workers=0, device=torch.device('cpu'), shuffle=False)


def small(pretrained=False, widths=(3, 8, 12, 16)):
    "Return a small network, an architecture for vision_learner."
    stages = [
        nn.Sequential(nn.Conv2d(n_in, n_out, 3, 2, 1), nn.BatchNorm2d(n_out), nn.ReLU())
        for n_in, n_out in zip(widths, widths[1:])
    ]
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 2))


def images(y):
    return pairs(torch.rand(N, 3, SIDE, SIDE), y)


def vision(dls, **kwargs):
    return vision_learner(dls, small, pretrained=False, normalize=False, lin_ftrs=[8], **kwargs)


def classes():
    return vision(images(torch.arange(N) % CLASSES), n_out=CLASSES, loss_func=CrossEntropyLossFlat())


def labels():
    return vision(images((torch.rand(N, 4) > 0.5).float()), n_out=4, loss_func=BCEWithLogitsLossFlat())


def numbers():
    return vision(images(torch.rand(N, 2)), n_out=2, loss_func=L1LossFlat(), y_range=(0, 1))


def yes_or_no():
    return vision(images((torch.rand(N, 1) > 0.5).float()), n_out=1, loss_func=BCEWithLogitsLossFlat())


def pixels():
    dls = images(torch.randint(CLASSES, (N, SIDE, SIDE)))
    return unet_learner(
        dls, small, pretrained=False, normalize=False, n_out=CLASSES, loss_func=CrossEntropyLossFlat(axis=1)
    )


def tabular():
    rows = pd.DataFrame(
        dict(
            color=['red', 'green', 'blue', 'red'] * 4,
            size=torch.randn(N).tolist(),
            weight=torch.randn(N).tolist(),
            kind=['a', 'b', 'c', 'a'] * 4,
        )
    )
    dls = TabularDataLoaders.from_df(
        rows,
        procs=[Categorify, FillMissing, Normalize],
        cat_names=['color'],
        cont_names=['size', 'weight'],
        y_names='kind',
        y_block=CategoryBlock(),
        valid_idx=[*range(8, N)],
        bs=BATCH,
        device=torch.device('cpu'),
    )
    return tabular_learner(dls, layers=[16, 8])


def text():
    dls = pairs(torch.randint(2, 20, (N, 10)), torch.arange(N) % CLASSES)
    dls.vocab = [str(i) for i in range(20)]
    return text_classifier_learner(
        dls,
        AWD_LSTM,
        pretrained=False,
        n_out=CLASSES,
        loss_func=CrossEntropyLossFlat(),
        config=awd_lstm_clas_config | RNN,
        seq_len=8,
    )


def language():
    def batches(seed):
        return LMDataLoader(
            [torch.randint(20, (40,), generator=torch.Generator().manual_seed(seed)) for _ in range(8)],
            bs=4,
            seq_len=5,
            num_workers=0,
        )

    dls = DataLoaders(batches(0), batches(1), device=torch.device('cpu'))
    dls.vocab = [str(i) for i in range(20)]
    return language_model_learner(dls, AWD_LSTM, pretrained=False, config=awd_lstm_lm_config | RNN)


KINDS = dict(
    classes=classes,
    labels=labels,
    numbers=numbers,
    yes_or_no=yes_or_no,
    pixels=pixels,
    tabular=tabular,
    text=text,
    language=language,
)


def learner(kind, seed=0):
    torch.manual_seed(seed)
    learn = KINDS[kind]()
    learn.remove_cbs(ProgressCallback)
    learn.logger = noop
    return learn
