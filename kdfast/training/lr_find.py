"""Find a learning rate for a recipe: the range test, on the loss that the recipe trains with."""

import tempfile
from pathlib import Path

from rich.console import Group
from rich.text import Text

from kdfast.core.errors import KdfastError
from kdfast.core.tables import Table
from kdfast.data.dataset import Data
from kdfast.runs.recipes import Recipe, find_recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training.execute import train
from kdfast.training.learner import RunLearner
from kdfast.training.rehearsal import rehearse
from kdfast.training.run import Run

ROWS = 16  # of the table
WIDTH = 30  # characters of the longest bar


class LRFindResult(Exception):
    "The result of the range test; raised to end the recipe."

    def __init__(
        self,
        suggested: float,  # Learning rate
        rates: list,  # Learning rates of the test
        losses: list,  # Smoothed loss at each rate
    ):
        super().__init__('a learning rate was found')
        self.suggested = suggested
        self.rates = rates
        self.losses = losses


class LRFindLearner(RunLearner):
    "A Learner that runs the range test instead of training."

    def fit_one_cycle(self, n_epoch, lr_max=None, cbs=None, **kwargs):
        "Run the range test. Raises LRFindResult."
        with self.added_cbs(cbs):
            suggested = self.lr_find(show_plot=False).valley
        raise LRFindResult(suggested, self.recorder.lrs, [float(loss) for loss in self.recorder.losses])


class LRFindRun(Run):
    "A run that ends with its first fit; the runs that it depends on are trained as usual."

    learner_class = LRFindLearner


def find(
    recipe: Recipe,  # Recipe to find a rate for
    data: Data,  # Images to train on
    seed: int,  # Seed of the run
    given: dict,  # Arguments of the recipe that differ from its defaults
    runs_dir: Path,  # Directory of the runs; those that the recipe depends on are trained there first
) -> LRFindResult:
    """Run fastai's `lr_find` with the recipe's callbacks; return its valley, rates and losses.

    Smith 2017 (https://arxiv.org/abs/1506.01186).

    Raises KdfastError if the recipe does not call `fit_one_cycle`.
    """
    arguments = recipe.resolve(given)
    upstream = [(find_recipe(name), overrides) for name, overrides in recipe.needed(arguments)]
    folders = [
        locate_run(runs_dir, data.name, other.folder_name(other.resolve(overrides)), seed)
        for other, overrides in upstream
    ]
    with tempfile.TemporaryDirectory() as directory:
        folder = RunDir(Path(directory) / data.name / recipe.name / str(seed))
        if not all(needed.finished for needed in folders):  # training them may take hours
            rehearse(Run(folder, data, seed, runs_dir), recipe, arguments)
        run = LRFindRun(folder, data, seed, runs_dir, train=train, settings=recipe.settings_in(arguments))
        run.folder.start(dict(recipe=recipe.name), recipe.source)
        try:
            recipe.main()(run, **recipe.of_main(arguments))
        except LRFindResult as result:
            return result
    raise KdfastError(f'{recipe.name} does not call fit_one_cycle: it has no learning rate to find')


def view(
    found: LRFindResult,  # From `find`
) -> Group:
    "Return a table with a bar per learning rate, and the option to use."
    step = max(1, len(found.rates) // ROWS)
    rates = found.rates[::step]
    losses = found.losses[::step]
    low = min(losses)
    high = sorted(losses)[len(losses) * 3 // 4]  # an upper quartile: exploding losses would hide the others
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column()
    table.add_column(overflow='crop', no_wrap=True)
    table.add_row(Text('rate', 'dim'), Text('loss', 'dim'))
    for rate, loss in zip(rates, losses):
        bar = '━' * round(WIDTH * min(1, (loss - low) / (high - low or 1)))
        table.add_row(f'{rate:.1e}', f'{loss:.3f}', Text(bar + ('…' if loss > high else ''), 'cyan'))
    return Group(table, Text.assemble('\nsuggested  ', (f'--lr {found.suggested:.2g}', 'bold'), '\n'))
