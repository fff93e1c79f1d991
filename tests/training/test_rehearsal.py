"A rehearsal runs any recipe on a few images and leaves nothing behind."

import pytest
import rehearsals
import torch
from conftest import beside, equal, weights
from rehearsals import here

from kdfast.core.errors import Diverged, KdfastError
from kdfast.models.saved import load_network
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir, locate_run
from kdfast.training import evaluation, rehearsal
from kdfast.training.execute import train
from kdfast.training.rehearsal import rehearse
from kdfast.training.run import Run
from kdfast.training.small import IMAGES

temporary = pytest.fixture(rehearsals.temporary)


def tried(recipe, data, kept_in, **given):
    found = find_recipe(str(recipe))
    arguments = found.resolve(given)
    rehearse(Run(locate_run(kept_in, data.name, found.folder_name(arguments), 0), data, 0, kept_in), found, arguments)


@pytest.mark.parametrize('recipe', ['exp2', 'funmatch'])
def test_a_rehearsal_restores_the_state_of_the_process(data, tmp_path, temporary, capsys, recipe):
    before = here()
    tried(recipe, data, tmp_path / 'runs')
    assert here() == before and not (tmp_path / 'runs').exists() and capsys.readouterr() == ('', '')


def test_a_rehearsed_run_ends_with_the_same_bits(study, data, tmp_path):
    found = find_recipe('kd')
    one, two = (
        train(found, data, 0, dict(epochs=1), beside(study, tmp_path / name, 'teacher'), rehearsed=name == 'two')
        for name in ('one', 'two')
    )
    assert equal(weights(one), weights(two))


def test_finished_upstream_runs_are_used_unchanged(study, data, tmp_path, temporary):
    "A finished teacher is not tried, and its outputs for the few images are not kept"
    kept_in = beside(study, tmp_path / 'runs', 'teacher', 'hint')
    before = {file: file.read_bytes() for file in kept_in.rglob('*') if file.is_file()}
    tried('exp1', data, kept_in)
    assert {file: file.read_bytes() for file in kept_in.rglob('*') if file.is_file()} == before


def test_a_resumed_run_is_not_rehearsed_again(data, tmp_path, monkeypatch):
    def end(_):
        raise KeyboardInterrupt

    found, count = find_recipe('baseline'), []
    monkeypatch.setattr(rehearsal, 'rehearse', lambda *_: count.append(1))
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, 'evaluate', lambda *_: end(_))
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                train(found, data, 0, dict(epochs=1), tmp_path)
    assert count == [1] and train(found, data, 0, dict(epochs=1), tmp_path).finished and count == [1]


def test_an_infinite_loss_of_a_few_images_refuses_nothing(data, tmp_path, monkeypatch):
    (tmp_path / 'mine.py').write_text(
        '"Diverges."\nfrom kdfast.all import *\ndef main(run):\n'
        '    learn = run.learner(run.build(thin), loss_func=lambda p, y: p.sum()/0)\n'
        '    learn.fit(1)\n    return learn\n'
    )
    tried(tmp_path / 'mine.py', data, tmp_path / 'runs')
    with pytest.raises(Diverged):
        train(find_recipe(str(tmp_path / 'mine.py')), data, 0, {}, tmp_path / 'runs')


# What recipes do

ABLE = dict(
    finds_a_rate='lr = learn.lr_find(show_plot=False).valley; learn.fit_one_cycle(3, lr)',
    finds_two_rates='a,b = learn.lr_find(show_plot=False, suggest_funcs=(minimum, steep)); '
    'learn.fit_one_cycle(2, min(a, b))',
    fits_in_stages='learn.fit_one_cycle(9); learn.fit_flat_cos(9); learn.fit_sgdr(2, 2); '
    'learn.fine_tune(5, freeze_epochs=3)',
    goes_through_epochs='for epoch in range(4): learn.fit(1, 1e-3)',
    starts_late='learn.fit_one_cycle(5, start_epoch=2)',
    has_callbacks='learn.fit_one_cycle(5, cbs=[EarlyStoppingCallback(patience=1), SaveModelCallback(), '
    'GradientAccumulation(16), MixUp(), GradientClip()])',
    predicts='learn.fit(2); learn.validate(); learn.get_preds();  assert len(learn.get_preds()[0]) >= 2',
    indexes='x,y = run.dls.train_ds[70]; assert len(run.dls.train_ds) == 72 and len(run.data.train[1]) == 72; '
    'learn.fit(1)',
    own_loader='dl = run.dls.train.new(run.dls.train_ds.plain(), shuffle=False); '
    'learn.dls = DataLoaders(dl, run.dls.valid, device=run.dls.device); learn.fit(2)',
    freezes='learn = run.learner(run.build(thin), splitter=run.front_back()); '
    'learn.freeze(); learn.fit(2, cbs=BnFreeze())',
    rates_by_group='learn = run.learner(run.build(thin), splitter=run.front_back()); '
    'learn.fit_one_cycle(2, slice(1e-4, 1e-2))',
    has_two_teachers='a,b = run.needs("teacher"),run.needs("teacher", network="thin"); '
    'learn.fit(1, cbs=[Distill(a), Match(b, at_loss, 1., "stage2:stage2")])',
    says='run.say("a note"); print("a word"); learn.fit(1)',
)


@pytest.mark.parametrize('name', ABLE)
def test_unusual_recipes_can_be_rehearsed(data, tmp_path, temporary, capsys, name):
    (tmp_path / 'mine.py').write_text(
        f'"Mine."\nfrom kdfast.all import *\n\ndef main(run, epochs:int=1):\n'
        f'    learn = run.learner(run.build(thin))\n    {ABLE[name]}\n    return learn\n'
    )
    tried(tmp_path / 'mine.py', data, tmp_path / 'runs')
    assert capsys.readouterr() == ('', '') and not (tmp_path / 'runs').exists()


def test_epochs_steps_and_images_are_few_and_no_weight_moves(data, tmp_path, monkeypatch):
    seen, perform = [], evaluation.evaluate

    def judge(run, arguments, outcome):
        seen.append((len(run.metrics_log.epochs), run.folder.metrics('steps.csv')))
        assert len(run.data.train[1]) == len(run.data.valid[1]) == IMAGES
        new = run.build('thin').state_dict()
        assert all(torch.equal(new[name], p.cpu()) for name, p in outcome.model.named_parameters())
        return perform(run, arguments, outcome)

    monkeypatch.setattr(evaluation, 'evaluate', judge)
    tried('baseline', data, tmp_path, epochs=50)
    [(epochs, steps)] = seen
    assert epochs == 1 and len(steps) == 2


@pytest.mark.parametrize('made', ['lambda n: thin(n)', 'inner', 'partial(thin)', 'partial(network, (4, 8, 12))'])
def test_a_network_that_nothing_could_build_again_is_trained_and_that_is_said(kdfast, images, tmp_path, made):
    (tmp_path / 'mine.py').write_text(
        f'"Mine."\nfrom kdfast.all import *\n\ndef main(run, epochs:int=1):\n    def inner(n): return thin(n)\n'
        f'    learn = run.learner(run.build({made}))\n    learn.fit_one_cycle(epochs, .1)\n    return learn\n'
    )
    done = kdfast('run', tmp_path / 'mine.py', '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 0, done.err
    folder = RunDir(tmp_path / 'runs' / 'tiny' / 'mine' / '0')
    if 'cannot load them' in done.err:
        with pytest.raises(KdfastError, match='does not name what builds its network'):
            load_network(folder)
    else:
        assert equal(load_network(folder).state_dict(), weights(folder))
    assert made == 'partial(thin)' or 'cannot load them' in done.err


@pytest.mark.parametrize('recipe', ['kd', 'hint', 'exp1', 'exp2'])
@pytest.mark.parametrize('wrapper', ['parallel', 'compiled'])
def test_wrapped_networks_can_be_students_of_every_recipe(study, data, tmp_path, wrapper, recipe):
    pair = {} if recipe == 'kd' else dict(hint='stage2:body.2')
    student = rehearsals.nets(tmp_path, wrapper)
    done = train(
        find_recipe(recipe), data, 0, dict(student=student, epochs=1, **pair), beside(study, tmp_path, 'teacher')
    )
    assert load_network(done)(torch.zeros(1, 3, *data.shape)).shape == (1, 3)
