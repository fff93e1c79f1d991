"Learning from the teacher's inner features: the cut, the regressor and the callback of stage one."
import difflib
from collections import OrderedDict
from functools import partial
from itertools import islice

import fastai.callback.schedule # gives Learners fit_one_cycle
import torch
from fastai.basics import L, Learner, params, patch
from torch import nn

from kdfast.errors import KdfastError
from kdfast.fit import FitCallback
from kdfast.inference import as_module, ask, evaluating, unwrapped
from kdfast.losses import hint_loss
from kdfast.teacher import Teacher

LAYER = 'stage2' # of kdfast's own networks: hint and guided layer both close the middle stage
WRAPPERS = ('network', 'module') # what a network may be called inside another: by kdfast, by DataParallel


def front(
    net:nn.Module, # Any network
    layer:str=LAYER, # Dotted name of its hint or guided layer
) -> nn.Module:
    """The network up to and including that layer; the modules are shared, not copied, and nothing behind it is computed.

    Raises KdfastError, with the nearest names, where the network has no such layer.
    """
    net = unwrapped(net)
    layer = full_name(net, layer)
    if type(net) is not nn.Sequential: return Until(net, layer)
    name,_,inner = layer.partition('.')
    children = dict(net.named_children())
    before = dict(islice(children.items(), list(children).index(name)))
    return nn.Sequential(OrderedDict(before | {name: front(children[name], inner) if inner else children[name]}))


def full_name(net, layer):
    "The layer's name in `net`, which may hold its network inside a wrapper"
    names = [name for name,_ in net.named_modules()][1:]
    for name in (layer, *(f'{wrapper}.{layer}' for wrapper in WRAPPERS)):
        if name in names: return name
    near = difflib.get_close_matches(layer, names, n=3)
    raise KdfastError(f'{type(net).__name__} has no layer {layer}; ' + (f'did you mean {", ".join(near)}?' if near else 'kdfast layers lists what it has'))


class Until(nn.Module):
    "A network that ends with one of its layers, in the middle of its own forward pass."
    def __init__(self,
        net:nn.Module, # Shared, not copied
        layer:str, # Dotted name
    ):
        super().__init__()
        self.net,self.layer = net,layer

    def forward(self, x):
        def reached(module, inputs, output): raise Reached(output)
        hook = self.net.get_submodule(self.layer).register_forward_hook(reached)
        try: self.net(x)
        except Reached as found: return feature_map(found.output, self.layer)
        finally: hook.remove()
        raise KdfastError(f'{type(self.net).__name__} does not compute its layer {self.layer} when it is shown an image')


class Reached(Exception):
    "The layer's output: what is behind it need not be computed."
    def __init__(self, output):
        super().__init__('the layer was reached')
        self.output = output


def feature_map(output, layer):
    if isinstance(output, torch.Tensor): return output
    raise KdfastError(f'layer {layer} gives {type(output).__name__}, expected a tensor: choose another')


def front_back(
    net:nn.Module, # A network
    layer:str=LAYER, # Dotted name of its guided layer
    xb:torch.Tensor|None=None, # An image or two; needed where the network is no nn.Sequential
) -> list:
    "Splitter for a Learner: `freeze()` then holds the front still, every parameter that the guided features depend on, and trains the back."
    cut = front(net, layer)
    used = {id(p) for p in (depends_on(cut, xb) if any(isinstance(m, Until) for m in cut.modules()) else cut.parameters())}
    return [[p for p in params(net) if (id(p) in used) == inside] for inside in (True, False)]


def depends_on(net, xb):
    "The parameters that change what `net` makes of `xb`"
    own = [p for p in net.parameters() if p.requires_grad]
    with evaluating(net): gradients = torch.autograd.grad(net(xb.to(own[0].device)).float().square().sum(), own, allow_unused=True)
    return [p for p,gradient in zip(own, gradients) if gradient is not None]


def regressor(
    student:nn.Module, # The student's front
    teacher:nn.Module, # The teacher's front
    xb:torch.Tensor, # Some images, to see both shapes
) -> nn.Conv2d:
    """The extra matrix of a hint: a convolution from the guided features to the hint's channels, height and width.

    Romero et al. 2015, section 2.2: without padding, its kernel as large as it takes to shrink the guided features to the
    hint's height and width; 1×1 where they are equal. Raises KdfastError where they are smaller than the hint's, or either
    layer gives no feature map. Neither front is changed: both run in evaluation mode.
    """
    guided,hint = features(student, xb),features(teacher, xb)
    shrink = [g - h + 1 for g,h in zip(guided.shape[2:], hint.shape[2:])]
    if guided.dim() != 4 or hint.dim() != 4 or min(shrink) < 1:
        raise KdfastError(f'no regressor maps guided features of {shape(guided)} onto a hint of {shape(hint)}: '
                          'choose layers of equal height and width, or a guided layer nearer to the image')
    return nn.Conv2d(guided.shape[1], hint.shape[1], shrink)


def features(net, xb):
    "What `net` makes of `xb`, without moving its batch-norm statistics"
    with evaluating(net), torch.no_grad(): return net(xb.to(next(net.parameters()).device))


def shape(x): return '×'.join(str(n) for n in x.shape[1:])


class Hint(FitCallback):
    """Ask for the teacher's hint in place of the label: https://arxiv.org/abs/1412.6550

    For a Learner whose model is the student's front with the regressor behind it and whose loss is `hint_loss`:
    nothing behind the guided layer is computed, in neither network. `parts` holds the batch's fit loss.
    """
    in_predictions = True # `validate` compares with the hint, too
    order = 9.5  # after MixUp (0) mixed the batch and CastToTensor (9) made it plain: the teacher sees what the student sees

    def __init__(self,
        teacher:nn.Module|Learner, # The teacher up to and including its hint layer
    ):
        self.teacher,self.inference_teacher,self.parts = as_module(teacher),None,{}

    def before_fit(self):
        self.leave()
        self.inference_teacher = Teacher(self.teacher, self.model)

    def before_train(self): self.inference_teacher.begin()
    def before_validate(self): self.inference_teacher.begin()

    def before_batch(self):
        "The hint is the target, in training and in validation"
        teacher = self.inference_teacher or partial(ask, self.teacher) # a prediction before the fit has begun
        self.parts,self.learn.yb = {},tuple(teacher(self.xb))

    def after_loss(self): self.parts = dict(total=self.loss.detach(), fit=self.loss.detach())

    def leave(self):
        if self.inference_teacher: self.inference_teacher.leave()
        self.inference_teacher = None

    def after_fit(self):
        "Leave no gradient behind: an optimizer steps any parameter that has one, frozen or not"
        if self.fitting: self.model.zero_grad(set_to_none=True)
        self.leave()


@patch
def fit_hint(self:Learner,
    n_epoch:int, # Epochs of stage one
    teacher:nn.Module|Learner, # Trained network
    hint:str, # Dotted name of the teacher's hint layer
    guided:str, # Dotted name of the student's guided layer
    lr_max:float|None=None, # Peak of the one-cycle schedule, the Learner's own unless given
    **kwargs # Passed to fit_one_cycle: wd, cbs …
) -> Learner: # Stage one's own Learner, for its losses
    """Stage one on any Learner: its model's front learns the teacher's hint, without labels (https://arxiv.org/abs/1412.6550).

    Where the shapes differ, a regressor is trained between them and dropped. Afterwards `freeze` holds the front still, its
    batch-norm weights among it (train_bn is off; their statistics need fastai's BnFreeze in the fit), and `unfreeze` trains everything.
    Raises KdfastError for a layer that is not there, and where no regressor can exist.
    """
    xb,teacher = self.dls.one_batch()[0],as_module(teacher).to(self.dls.device)
    student,target = front(self.model.to(self.dls.device), guided),front(teacher, hint)
    alike = features(student, xb).shape == features(target, xb).shape
    model = student if alike else nn.Sequential(student, regressor(student, target, xb).to(self.dls.device))
    stage_one = Learner(self.dls, model, hint_loss, opt_func=self.opt_func, lr=self.lr, wd=self.wd, moms=self.moms, path=self.path, model_dir=self.model_dir)
    stage_one.fit_one_cycle(n_epoch, lr_max, cbs=[Hint(target), *L(kwargs.pop('cbs', None))], **kwargs)
    self.splitter,self.train_bn,self.opt = partial(front_back, layer=guided, xb=xb[:2]),False,None
    return stage_one
