"Knowledge distillation and FitNets hints with fastai."

__version__ = '0.1.0'
