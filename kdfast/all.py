"The one star import of a recipe: fastai's vision library, then ours."
from fastai.vision.all import *

from kdfast.distill import Distill
from kdfast.freeze import FreezeNorm
from kdfast.hint import Hint, regressor
from kdfast.front import front, front_back
from kdfast.learned_losses import CRD, VID, Regressed, ReviewKD
from kdfast.losses import at_loss, dist_loss, dkd_loss, hint_loss, kd_loss, ls_kd_loss, pkt_loss, rkd_loss, sp_loss, standardised
from kdfast.match import Match
from kdfast.mixup import MixUp
from kdfast.models import matched, network, thin, wide
from kdfast.muon import Muon
from kdfast.trainer import Run
