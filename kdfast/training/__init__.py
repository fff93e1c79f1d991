"""Training: runs, checkpoints, evaluation, metrics, precision, optimizers."""
