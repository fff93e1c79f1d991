"A learning rate for a recipe: the range test, on the loss that the recipe trains with."

import tempfile
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kdfast.core.errors import KdfastError
from kdfast.data.dataset import Data
from kdfast.runs.recipes import Recipe, find_recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training.learner import RunLearner
from kdfast.training.rehearsal import rehearse
from kdfast.training.run import Run

ROWS = 16  # of the table
WIDTH = 30  # characters of the longest bar


class Found(Exception):
    "What the range test found; the recipe need not go on."

    def __init__(self, suggested, rates, losses):
        super().__init__('a learning rate was found')
        self.suggested, self.rates, self.losses = suggested, rates, losses


class Finder(RunLearner):
    "A Learner that looks for a rate where it is told to train."

    def fit_one_cycle(self, n_epoch, lr_max=None, cbs=None, **kwargs):
        with self.added_cbs(cbs):
            suggested = self.lr_find(show_plot=False).valley
        raise Found(suggested, self.recorder.lrs, [float(loss) for loss in self.recorder.losses])


class Sketch(Run):
    "A run of which only the first Learner is wanted; what it stands on is trained as ever."

    kind = Finder


def find(
    recipe: Recipe,  # For which
    data: Data,  # On which images
    seed: int,  # With which random numbers
    given: dict,  # Arguments that are not the recipe's defaults
    kept_in: Path,  # Where runs are kept: what the recipe stands on is trained there first
) -> Found:
    """The rate at which the recipe's loss falls fastest before it rises: fastai's `lr_find`, with the recipe's own callbacks.

    Smith 2017 (https://arxiv.org/abs/1506.01186), the valley of the curve. The rates tried and their smoothed losses come with it.
    """
    arguments = recipe.resolve(given)
    needed = [
        locate_run(kept_in, data.name, found.folder_name(found.resolve(more)), seed)
        for found, more in ((find_recipe(name), more) for name, more in recipe.needed(arguments))
    ]
    with tempfile.TemporaryDirectory() as aside:
        if not all(folder.finished for folder in needed):  # before hours of a teacher's training
            rehearse(
                Run(RunDir(Path(aside) / data.name / recipe.name / str(seed)), data, seed, kept_in), recipe, arguments
            )
        run = Sketch(RunDir(Path(aside) / data.name / recipe.name / str(seed)), data, seed, kept_in)
        run.folder.start(dict(recipe=recipe.name), recipe.source)
        try:
            recipe.main()(run, **arguments)
        except Found as found:
            return found
    raise KdfastError(f'{recipe.name} does not call fit_one_cycle: there is nothing to look for a rate for')


def view(
    found: Found,
) -> Group:
    "The curve, sideways, and what to type."
    step = max(1, len(found.rates) // ROWS)
    rates, losses = found.rates[::step], found.losses[::step]
    low, high = (
        min(losses),
        sorted(losses)[len(losses) * 3 // 4],
    )  # a loss that explodes would leave no room for the rest
    table = Table.grid(padding=(0, 2))
    table.add_row(Text('rate', 'dim'), Text('loss', 'dim'))
    for rate, loss in zip(rates, losses):
        bar = '━' * round(WIDTH * min(1, (loss - low) / (high - low or 1)))
        table.add_row(f'{rate:.1e}', f'{loss:.3f}', Text(bar + ('…' if loss > high else ''), 'cyan'))
    return Group(table, Text.assemble('\nsuggested  ', (f'--lr {found.suggested:.2g}', 'bold'), '\n'))
