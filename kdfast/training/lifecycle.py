"""A run from its beginning to its result: directory, main, record of how it ended."""

from contextlib import contextmanager

from fastai.basics import Learner, set_seed
from torch import nn

from kdfast.core import distributed, signals
from kdfast.core.errors import Diverged, KdfastError, reason, resource_failure
from kdfast.core.projects import project_of_file
from kdfast.runs import trust
from kdfast.training import identity
from kdfast.training.environment import environment
from kdfast.training.precision import autocast_state, restore_autocast

KEPT = 'What is trained is kept: the same command goes on from there'


def call_main(run, recipe, arguments):
    "What `main` returns: the Learner to be judged, or a network to be kept. Raises KdfastError for anything else"
    set_seed(run.seed)
    outcome = recipe.main()(run, **arguments)
    if isinstance(outcome, Learner | nn.Module) or not run.record.epochs:
        return outcome
    raise KdfastError(
        f'{recipe.file}: main returns {type(outcome).__name__}, expected the Learner to be judged, or a network to be kept'
    )


def begin_run(run, recipe, arguments):
    "Make the folder, or go on from what is there, and put on record what is about to be done"
    folder = run.folder
    facts = dict(
        recipe=recipe.name,
        arguments=arguments,
        data=run.data.name,
        data_sha256=run.data.fingerprint,
        data_notes=list(run.data.notes),
        seed=run.seed,
        batch_size=run.dls.train.bs,
        precision=run.precision,
        **run.identity,
        **environment(),
    )
    folder.record = distributed.broadcast_from_first(lambda: folder.start(facts, recipe.source))
    trust.replace_sources(project_of_file(recipe.file).sources if 'recipe_sources' in run.identity else {}, folder.path)
    folder.set_status('running', images=run.data.asked)  # where they were; they may have moved when it goes on
    if changed := folder.record['changed']:
        run.say(
            f'nothing gives these weights again, for something changed while they were trained: {"; ".join(changed)}'
        )
    run.checkpoints = run.keeper(folder, run.say)


@contextmanager
def outcome_recorded(run):
    "Say in the folder how the training ended, if not well. Its checkpoints stay, whatever it was"
    folder, autocast = run.folder, autocast_state(run.dls.device.type)
    try:
        yield
    except Diverged as e:
        folder.set_status('diverged', reason=e.message)
        raise
    except (KdfastError, OSError) as e:  # once the user has mended what there is, it goes on
        folder.set_status('interrupted', reason=e.message if isinstance(e, KdfastError) else str(e))
        raise
    except (KeyboardInterrupt, SystemExit):
        folder.set_status('interrupted', reason='by a signal')
        raise
    except BaseException as e:
        words, kept = resource_failure(e), [KEPT] if folder.has_checkpoints else []
        folder.set_status('failed', reason=words or reason(e))
        if words:
            raise KdfastError('. '.join([words, *kept])) from e
        for note in kept:
            e.add_note(note)
        raise
    finally:
        signals.training = False
        restore_autocast(autocast)  # whatever a callback of the user's left


def check_identity(folder, recipe, data, arguments):
    "Raise KdfastError where the finished run in `folder` is not the run that is asked for"
    was = folder.run
    if was.get('data_sha256') != data.fingerprint:
        raise KdfastError(
            f'{folder} was trained on other images that were also called {data.name}: keep the new runs elsewhere with --runs'
        )
    if folder.parsed('recipe.py', bytes.decode) != recipe.source:
        raise KdfastError(
            f'{folder} was made by another version of {recipe.file.name}: remove that folder, rename the recipe, or use --runs'
        )
    if was.get('arguments') != arguments:
        raise KdfastError(
            f'{folder} was made with arguments {was.get("arguments")}, asked is {arguments}: remove that folder, or use --runs'
        )
    identity.check(folder, recipe, arguments, data, environment()['versions'])
