"""The measures of a run: name in result.json, heading in tables, format."""

from kdfast.core.format import count_text, duration, loss_text, megabytes, milliseconds, percent, thousands

MEASURES = {  # of the report's table: what result.json calls it, what the table calls it, and how it is written
    'train_loss': ('loss', loss_text),
    'train_accuracy': ('training accuracy', percent),
    'valid_accuracy': ('validation accuracy', percent),
    'fit_loss': ('fit loss', loss_text),
    'soft_loss': ('soft loss', loss_text),
    'hard_loss': ('hard loss', loss_text),
    'params': ('parameters', thousands),
    'macs': ('multiply-adds', thousands),
    'bytes': ('weights', megabytes),
    'latency': ('one image takes', milliseconds),
    'epochs': ('epochs', count_text),
    'seconds': ('time', duration),
}
