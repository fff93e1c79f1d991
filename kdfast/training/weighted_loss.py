"""Class weights in the training loss on labels."""

import torch
from fastai.layers import NoneReduce
from fastcore.basics import GetAttr

from kdfast.core.errors import KdfastError
from kdfast.distill.fit import FitCallback
from kdfast.distill.tasks import CLASS, inner_loss, known_task, name_of


class ClassWeights(FitCallback):
    """Weigh the training loss by the class of each image: the mean over images of weight · loss.

    The mean is over images, not over their weights as in torch's CrossEntropyLoss: it is the same for all ways to
    divide images into batches and processes, and the same with MixUp and CutMix, which mix the weighted losses of two
    images. Losses that callbacks add, such as the soft loss of Distill, are not weighted. Validation and prediction
    keep the Learner's own loss.

    Raises KdfastError, before the first step, for a loss that is not one of a single class per image, or that has
    class weights already.
    """

    order = -1  # before MixUp (0), which wraps the loss that it finds

    def __init__(
        self,
        weights: list[float],  # In the order of the labels
    ):
        self.weights = torch.tensor(weights)
        self.plain = None  # the Learner's own loss, during a fit

    def before_fit(self):
        self.leave()
        check_weightable(self.learn.loss_func)

    def before_train(self):
        if self.plain is None:
            self.plain = self.learn.loss_func
            self.learn.loss_func = WeightedLoss(self.plain, self.weights.to(self.device), self.learn)

    def leave(self):
        "Give the Learner its own loss back."
        if self.plain is not None:
            self.learn.loss_func = self.plain
        self.plain = None

    def after_fit(self):
        self.leave()


class WeightedLoss(GetAttr):
    "A loss that weighs images by class while the Learner trains; all else is the plain loss's."

    _default = 'plain'

    def __init__(
        self,
        plain,  # The loss to weigh
        weights,  # (classes,)
        learn,  # The Learner that trains
    ):
        self.plain = plain
        self.weights = weights
        self.learn = learn
        self.reduction = 'mean'  # MixUp sets it to none

    def __call__(self, pred, y):
        if not self.learn.training:
            return self.plain(pred, y)
        with NoneReduce(self.plain) as per_image:
            losses = per_image(pred, y)
        if y.is_floating_point() or losses.shape != y.shape:
            raise KdfastError(
                f'class weights need one label and one loss per image, {name_of(self.plain)} does not have them: '
                'use CrossEntropyLossFlat, or omit --class-weights'
            )
        losses = losses * self.weights[y.as_subclass(torch.Tensor)]
        return losses if self.reduction == 'none' else losses.mean()


def check_weightable(
    loss,  # Of a Learner
):
    "Raise KdfastError unless class weights can be added to a loss."
    task = known_task(loss)
    if not task or task.kind != CLASS:
        raise KdfastError(
            f'the loss {name_of(loss)} is not known as one of a single class per image, which class weights need: '
            'use CrossEntropyLossFlat, or omit --class-weights'
        )
    while loss is not None:
        own = getattr(loss, 'keywords', {}).get('weight', getattr(loss, 'weight', None))
        if own is not None:
            raise KdfastError('the loss of this recipe has class weights already: omit --class-weights')
        loss = inner_loss(loss)
