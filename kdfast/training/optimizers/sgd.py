"""SGD with momentum: fastai's."""

from fastai.optimizer import SGD

__all__ = ['SGD']
