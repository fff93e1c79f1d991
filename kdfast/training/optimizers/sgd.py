"""SGD with momentum.

The optimizer is fastai's.
"""

from fastai.optimizer import SGD

__all__ = ['SGD']
