"""The measures of a run. The tables, the CSV and the HTML page have a row or column for each of this list."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kdfast.core.format import count_text, duration, loss_text, milliseconds, percent, size_text, thousands

SCORES, COSTS, LOSSES = GROUPS = ('scores', 'size and time', 'losses')  # tables of the HTML page


@dataclass(frozen=True)
class Measure:
    "A number that describes a finished run."

    name: str  # Key in result.json, and column of the CSV
    label: str  # Heading in tables
    format: Callable[[float], str]
    compute: Callable[[dict], float | None] | None = None  # From result.json, if it has no such key
    group: str = SCORES  # Table of the HTML page that has it

    def value(
        self,
        result: dict,  # Content of result.json
    ) -> float | None:
        "Return the number of this run; None if it has none."
        return self.compute(result) if self.compute else result.get(self.name)


MEASURES = [  # the scores first, and of them those that runs are compared by
    Measure('valid_accuracy', 'validation accuracy', percent),
    Measure('valid_balanced_accuracy', 'balanced accuracy', percent),
    Measure('valid_map', 'validation mAP', percent),
    Measure('valid_f1_macro', 'F1 (macro)', percent),
    Measure('valid_f1_micro', 'F1 (micro)', percent),
    Measure('valid_f1', 'F1 per image', percent),
    Measure('test_accuracy', 'test accuracy', percent),
    Measure('test_map', 'test mAP', percent),
    Measure('train_accuracy', 'training accuracy', percent),
    Measure('train_map', 'training mAP', percent),
    Measure('params', 'parameters', thousands, group=COSTS),
    Measure('macs', 'multiply-adds', thousands, group=COSTS),
    Measure('bytes', 'size of weights', partial(size_text, digits=2), group=COSTS),
    Measure('latency', 'latency (1 image)', milliseconds, group=COSTS),
    Measure('epochs', 'epochs', count_text, group=COSTS),
    Measure('seconds', 'training time', duration, group=COSTS),
    Measure('train_loss', 'training loss', loss_text, group=LOSSES),
    Measure('fit_loss', 'fit loss', loss_text, group=LOSSES),
    Measure('soft_loss', 'soft loss', loss_text, group=LOSSES),
    Measure('hard_loss', 'hard loss', loss_text, group=LOSSES),
]
