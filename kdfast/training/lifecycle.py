"""Begin a run, call its recipe, record how it ended, check that a finished run is the requested one."""

from contextlib import contextmanager

from fastai.basics import Learner, set_seed
from torch import nn

from kdfast.core import distributed, signals
from kdfast.core.errors import Diverged, KdfastError, reason, resource_failure, users_line
from kdfast.core.projects import project_of_file
from kdfast.runs import trust
from kdfast.runs.recipes import Recipe
from kdfast.runs.resume_check import default_changes, differing_values, same_code
from kdfast.training import identity
from kdfast.training.environment import environment
from kdfast.training.precision import autocast_state, restore_autocast

CAN_RESUME = 'The training so far is saved: the same command resumes it'


def call_main(
    run,  # kdfast.training.run.Run
    recipe: Recipe,  # Recipe of the run
    arguments: dict,  # All of its arguments
) -> Learner | nn.Module:
    "Call `main`; return the Learner to evaluate or the network to save. Raises KdfastError otherwise."
    set_seed(run.seed)
    try:
        outcome = recipe.main()(run, **recipe.of_main(arguments))
    except signals.Interrupted:
        raise
    except SystemExit as e:  # else the run ends as if it were finished
        raise KdfastError(
            f'{users_line(e) or recipe.file}: SystemExit: {e}, expected main to return the Learner to evaluate, or a '
            'network to save'
        ) from e
    if isinstance(outcome, Learner | nn.Module) or not run.metrics_log.epochs:
        return outcome
    raise KdfastError(
        f'{recipe.file}: main returns {type(outcome).__name__}, expected the Learner to evaluate, or a network to save'
    )


def begin_run(
    run,  # kdfast.training.run.Run
    recipe: Recipe,  # Recipe of the run
    arguments: dict,  # All of its arguments
):
    "Create the run directory, or open it to resume, and record the configuration."
    folder = run.folder
    config = dict(
        recipe=recipe.name,
        arguments=arguments,
        data=run.data.name,
        data_sha256=run.data.fingerprint,
        **(dict(drawn_from=run.data.drawn_from) if run.data.drawn_from else {}),
        data_notes=list(run.data.notes),
        seed=run.seed,
        batch_size=run.dls.train.bs,
        precision=run.precision,
        **run.identity,
        **environment(),
    )
    folder.record = distributed.broadcast_from_first(lambda: folder.start(config, recipe.source))
    trust.replace_sources(project_of_file(recipe.file).sources if 'recipe_sources' in run.identity else {}, folder.path)
    folder.set_status('running', images=run.data.load_arguments)  # the location may have changed since an interruption
    if changed := folder.record['changed']:
        run.say(f'these weights cannot be reproduced, because something changed during training: {"; ".join(changed)}')
    run.checkpoints = run.checkpoints_class(folder, run.say)


@contextmanager
def outcome_recorded(
    run,  # kdfast.training.run.Run
):
    "Record in the run directory why training did not finish. Checkpoints remain in any case."
    folder = run.folder
    autocast = autocast_state(run.dls.device.type)
    try:
        yield
    except Diverged as e:
        folder.set_status('diverged', reason=e.message)
        raise
    except (KdfastError, OSError) as e:  # after the user has fixed the cause, it resumes
        folder.set_status('interrupted', reason=e.message if isinstance(e, KdfastError) else str(e))
        raise
    except (KeyboardInterrupt, SystemExit):
        folder.set_status('interrupted', reason='by a signal')
        raise
    except BaseException as e:
        message = resource_failure(e)
        notes = [CAN_RESUME] if folder.has_checkpoints else []
        folder.set_status('failed', reason=message or reason(e))
        if message:
            raise KdfastError('. '.join([message, *notes])) from e
        for note in notes:
            e.add_note(note)
        raise
    finally:
        signals.training = False
        restore_autocast(autocast)  # a callback of the user may have changed it


def check_identity(
    folder,  # RunDir of a finished run
    recipe: Recipe,  # Requested recipe
    data,  # Requested images
    arguments: dict,  # Requested arguments, all of them
    threads: int | None = None,  # Requested number of threads; any if None
):
    "Raise KdfastError if a finished run differs from the requested run."
    config = folder.run
    if threads not in (None, config.get('threads')):
        raise KdfastError(
            f'{folder} was trained with {config.get("threads")} threads, requested are {threads}: '
            'omit --threads, delete the run directory, or use --runs'
        )
    if config.get('data_sha256') != data.fingerprint:
        raise KdfastError(
            f'{folder} was trained on other images with the same name, {data.name}: '
            'use --runs to save the new runs elsewhere'
        )
    source = folder.parsed('recipe.py', bytes.decode)
    if not same_code(source, recipe.source):
        raise KdfastError(
            f'{folder} was trained with another version of {recipe.file.name}'
            f'{default_changes(source, recipe.source)}: '
            'delete the run directory, rename the recipe, or use --runs'
        )
    if config.get('arguments') != arguments:
        trained, requested = differing_values(config.get('arguments'), arguments)
        raise KdfastError(
            f'{folder} was trained with arguments {trained}, requested are {requested}: '
            'delete the run directory, or use --runs'
        )
    identity.check(folder, recipe, arguments, data, environment()['versions'])
