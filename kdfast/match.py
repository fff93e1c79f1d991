"Learning from whatever a teacher computes, next to the labels: attention, relations, contrast, decoupled logits …"
import inspect
from collections.abc import Callable

import torch
from fastai.basics import Callback, Learner
from fastai.callback.mixup import MixHandler
from torch import nn

from kdfast import processes
from kdfast.distill import as_module, folded, logits
from kdfast.errors import KdfastError
from kdfast.hint import full_name
from kdfast.recipe import pairs


class Match(Callback):
    """Add weight · loss(student's, teacher's) to the training loss: of features at pairs of layers, or of logits.

    The losses of kdfast.losses fit, and any function or module that takes the student's tensor before the teacher's. One with
    a parameter `y` is given the labels, too, one with `index` the places of the images in the training set; one that says
    `together = True` is given lists, a tensor a pair, any other is summed over the pairs. A loss that is a module is
    trained with the student. Validation keeps the task's own loss.
    The teacher is asked in evaluation mode, without gradient, of the very batch that the student sees. `parts` holds the
    last batch's hard, fit and total loss; `target`, where logits are compared, the teacher's for it, which another callback may
    set before. Raises KdfastError for a layer that a network has not, for MixUp and its kind next to a loss that needs the labels
    of single images, and for a loss that is a module in several processes.
    """
    _learn,order,run_valid = None,3,False # after Distill (2), whose blend it adds to; before GradientAccumulation (6) and MixedPrecision (10)

    def __init__(self,
        teacher:nn.Module|Learner, # Trained network
        loss:Callable, # loss(student's, teacher's)
        weight:float=1., # Of the loss
        layers:str|None=None, # Pairs, TEACHER_LAYER:STUDENT_LAYER,…; logits unless given
    ):
        self.teacher,self.measure,self.weight,self.parts = as_module(teacher),loss,weight,{}
        self.pairs = pairs(layers) if layers else []
        self.hooks,self.asked,self.target = [],None,None
        self.wants = inspect.signature(loss.forward if isinstance(loss, nn.Module) else loss).parameters.keys() & {'y', 'index'}

    @property
    def learn(self): return self._learn

    @learn.setter
    def learn(self, learn):
        "fastai sets it to None when it takes the callback off, however the fit ended"
        if self._learn is not None: self.leave()
        self._learn = learn

    def before_fit(self):
        if self.wants and any(isinstance(cb, MixHandler) for cb in self.learn.cbs):
            raise KdfastError(f'{name_of(self.measure)} needs the label of each image, and MixUp and CutMix mix images: leave one of them out')
        if self.trained and processes.several():
            raise KdfastError(f'{name_of(self.measure)} is trained with the student, and several processes would each train their own: use one process')
        self.leave()
        device = next(self.model.parameters()).device
        hints,guided = ([full_name(net, pair[side]) for pair in self.pairs] for side,net in enumerate((self.teacher, self.model)))
        self.asked = folded(self.teacher.to(device), keep=hints)
        self.hints,self.guided = self.watch(self.asked, hints),self.watch(self.model, guided)
        if self.trained: self.opt.param_lists[-1].extend(self.trained.to(device).parameters())

    @property
    def trained(self):
        "The loss, where it has parameters or a memory of its own: trained with the student, kept in checkpoints, not part of the model"
        return self.measure if isinstance(self.measure, nn.Module) else None

    def leave(self):
        "Nothing stays behind: no hook, no teacher, no parameter"
        for hook in self.hooks: hook.remove()
        self.hooks,self.asked = [],None
        if self.trained is None or self.opt is None: return
        own = {id(p) for p in self.trained.parameters()}
        for params in self.opt.param_lists: params[:] = [p for p in params if id(p) not in own]

    def watch(self, net, names):
        "What the layers give, as it is then: a layer behind may overwrite it in place"
        seen = {}
        def remember(name): return lambda module, inputs, output: seen.update({name: output.clone()})
        self.hooks += [net.get_submodule(name).register_forward_hook(remember(name)) for name in dict.fromkeys(names)]
        return lambda: [seen[name] for name in names]

    def before_batch(self): self.target = None

    def after_loss(self):
        if not self.pairs and self.target is None: self.target = logits(self.asked, self.xb, self.pred)
        student,teacher = self.features() if self.pairs else ([self.pred], [self.target])
        with torch.autocast(self.xb[0].device.type, enabled=False): fit = self.compare([s.float() for s in student], [t.float() for t in teacher])
        hard,total = self.loss_grad,self.loss_grad + self.weight*fit
        self.parts = dict(total=total.detach(), fit=fit.detach(), hard=hard.detach())
        self.learn.loss_grad,self.learn.loss = total,total.detach().clone()

    def features(self):
        "Of the layers, the student's and the teacher's"
        with torch.no_grad(): self.asked(*self.xb)
        return self.guided(),self.hints()

    def compare(self, student, teacher):
        more = {name: self.y if name == 'y' else indices(self.dl, self.iter) for name in self.wants}
        if getattr(self.measure, 'together', False): return self.measure(student, teacher, **more)
        return sum(self.measure(s, t, **more) for s,t in zip(student, teacher))

    def after_fit(self): self.leave()


def indices(dl, i):
    "Places in the data set of the images in the i-th batch of this epoch"
    if getattr(dl, 'batch_idx', None) is not None: return dl.batch_idx # of kdfast's own loader, on the batch's device
    return torch.as_tensor(dl._DataLoader__idxs[i*dl.bs:(i + 1)*dl.bs][processes.share()]) # fastai keeps the order of an epoch, but offers no way to ask for it


def name_of(loss): return type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, '__name__', str(loss))
