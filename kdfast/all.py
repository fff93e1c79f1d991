"The one star import of a recipe: fastai's vision library, then ours."

from fastai.vision.all import *

from kdfast.distill.distill import Distill
from kdfast.distill.freeze import FreezeNorm
from kdfast.distill.hint import Hint
from kdfast.distill.losses.crd import CRD
from kdfast.distill.losses.features import at_loss, hint_loss, pkt_loss, rkd_loss, sp_loss
from kdfast.distill.losses.logits import dist_loss, dkd_loss, kd_loss, ls_kd_loss, standardize
from kdfast.distill.losses.regressed import Regressed
from kdfast.distill.losses.review import ReviewKD
from kdfast.distill.losses.vid import VID
from kdfast.distill.match import Match
from kdfast.distill.mixup import MixUp
from kdfast.distill.regressor import regressor
from kdfast.models.folding import folded
from kdfast.models.front import front, front_back
from kdfast.models.study_networks import matched, network, thin, wide
from kdfast.training.muon import Muon
from kdfast.training.run import Run
