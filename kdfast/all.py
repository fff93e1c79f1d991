"The one star import of a recipe: fastai's vision library, then ours."
from fastai.vision.all import *

from kdfast.distill import Distill
from kdfast.hint import Hint, front, front_back, regressor
from kdfast.losses import hint_loss, kd_loss
from kdfast.match import Match
from kdfast.models import matched, network, thin, wide
from kdfast.trainer import Run
