"Knowledge distillation and FitNets hints with fastai."

from kdfast.core.openmp import share_cores

__version__ = '0.1.0'

share_cores()  # in notebooks, too: before torch is imported
