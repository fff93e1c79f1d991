"Two processes train one student: fastai's own distributed training, with the teacher in each."
import os
import socket
import subprocess
import sys

from conftest import equal
from safetensors.torch import load_file

SCRIPT = '''
import os, sys
import torch
from fastai.distributed import DistributedDL
from kdfast.all import *
from kdfast.data import load
from kdfast.loader import loaders
from safetensors.torch import save_file
DistributedDL._broadcast = lambda self, order, rank: order # fastai's own needs a GPU; and this order is the same in every process
images,home,alone = sys.argv[1],sys.argv[2],len(sys.argv) > 3
set_seed(1, reproducible=True)
teacher = network((8, 16, 24), 3)
set_seed(0, reproducible=True)
learn = Learner(loaders(load(images)), network((4, 8, 12), 3), CrossEntropyLossFlat(), opt_func=SGD, metrics=accuracy)
learn.remove_cbs(ProgressCallback)
learn.logger,seen = noop,[]
class Look(Callback):
    def after_batch(self): seen.extend(self.xb[0].flatten(1).sum(1).tolist() if self.training else [])
cbs = [] if alone else [Distill(teacher), Match(teacher, at_loss, 10., 'stage2:stage2')]
with learn.distrib_ctx(sync_bn=False, cpu=True): learn.fit(1, .05, cbs=[*cbs, Look()])
assert type(learn.model) is nn.Sequential and not any(module._forward_hooks for module in learn.model.modules())
save_file({name: p.detach().clone() for name,p in learn.model.named_parameters()} | dict(seen=tensor(seen)), f'{home}/{os.environ["RANK"]}.safetensors')
'''


def trained(images, home, *more):
    "What each of two processes ends with, and which images it saw"
    home.mkdir()
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), ACCELERATE_USE_CPU='true', PYTHONWARNINGS='ignore')
    both = [subprocess.Popen([sys.executable, '-c', SCRIPT, images, home, *more], env=env | dict(RANK=rank, LOCAL_RANK=rank)) for rank in '01']
    assert [process.wait() for process in both] == [0, 0]
    ends = [load_file(home/f'{rank}.safetensors') for rank in '01']
    return ends,[end.pop('seen') for end in ends]


def test_every_process_has_the_same_student_and_its_own_images(images, data, tmp_path):
    (one,other),seen = trained(images, tmp_path/'taught')
    assert equal(one, other)
    assert not set(seen[0].tolist()) & set(seen[1].tolist()) and len(seen[0]) == len(seen[1]) > 30
    (alone,_),_ = trained(images, tmp_path/'alone', 'alone')
    assert not equal(one, alone)
