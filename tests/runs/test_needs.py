"A plan's runs are those that training asks for, whatever the recipe, the teacher and the settings."

from itertools import product

import pytest
from conftest import make
from torch import nn

from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import find_recipe, recipe_names
from kdfast.runs.run_dir import RunDir
from kdfast.study.tasks import plan
from kdfast.training import run as run_module
from kdfast.training.run import Run

OWN = '''"Mine."
def main(run, epochs: int = 2, teacher: str = 'wide', teacher_epochs: int = 3, T: float = 4.0):
    run.needs('teacher', network=teacher, epochs=teacher_epochs)
    run.needs(name='hint', teacher=teacher, teacher_epochs=teacher_epochs)
    run.frozen(name=teacher)
    run.frozen(teacher, optimizer='adamw')
    run.frozen('thin')
    run.needs('kd', T=T)
'''
TEACHERS = None, 'thin', 'RUN', 'wide@FILE', 'timm:resnet18@pretrained'
SETTINGS = {}, dict(precision='float32'), dict(wd=0.01, class_weights='auto'), dict(lr=0.01, optimizer='adamw')


@pytest.fixture
def asked(data, tmp_path, monkeypatch):
    "Return what the main of a recipe asks for, without training anything"
    monkeypatch.setattr(run_module, 'load_network', lambda folder: nn.Identity())
    monkeypatch.setattr(run_module, 'adapt_teacher', lambda network, *_: network)
    monkeypatch.setattr(run_module, 'scaling_note', lambda *_: '')
    monkeypatch.setattr(run_module, 'held_out_note', lambda *_: '')
    monkeypatch.setattr(run_module, 'check_teacher', lambda *_: None)
    monkeypatch.setattr(run_module, 'frozen_network', lambda *_: nn.Identity())
    monkeypatch.setattr(run_module, 'record_upstream', lambda *_: None)

    def asked(recipe, arguments):
        found = []

        def train(recipe, data, seed, given, *_, **__):
            found.append((recipe.name, given))
            return make(tmp_path / 'upstream', 'teacher', seed)

        run = Run(RunDir(tmp_path / 'one'), data, 0, tmp_path, train=train, settings=recipe.settings_in(arguments))
        with monkeypatch.context() as patched:
            for method in ('build', 'as_given', 'embedding', 'learner', 'channels', 'guide', 'regressor'):
                patched.setattr(Run, method, stop)
            try:
                recipe.main()(run, **recipe.of_main(arguments))
            except Asked:
                pass
        return found

    return asked


class Asked(Exception):
    "The main has asked for all the runs that it needs."


def stop(*_, **__):
    raise Asked()


def given_to(recipe, teacher, teacher_epochs, settings):
    "Return the arguments that a recipe has an option for"
    names = {option.name for option in (*recipe.options, *recipe.settings)}
    given = dict(teacher=teacher, teacher_epochs=teacher_epochs) | settings
    return {name: value for name, value in given.items() if name in names and value is not None}


@pytest.mark.parametrize('name', [*recipe_names(), 'own'])
def test_a_plan_predicts_exactly_the_runs_that_training_asks_for(asked, tmp_path, name):
    (tmp_path / 'own.py').write_text(OWN)
    recipe = find_recipe(str(tmp_path / 'own.py') if name == 'own' else name)
    teacher_run = str(make(tmp_path, 'teacher', 0).path)
    for teacher, epochs, settings in product(TEACHERS, (None, 0, 2), SETTINGS):
        teacher = teacher_run if teacher == 'RUN' else teacher
        arguments = recipe.resolve(given_to(recipe, teacher, epochs, settings))
        assert recipe.needed(arguments) == asked(recipe, arguments), arguments


def test_a_study_trains_the_teacher_of_a_frozen_network_first(tmp_path):
    tasks = plan([(find_recipe(name), {}) for name in ('kd', 'finetune', 'pretrain')], range(1), 'pets', tmp_path)
    needs = {task.folder.recipe: [need.folder.recipe for need in task.needs] for task in tasks}
    assert needs == dict(teacher=[], kd=['teacher'], pretrain=['teacher'], finetune=['pretrain'])


def test_what_is_called_frozen_elsewhere_asks_for_no_run(tmp_path):
    (tmp_path / 'own.py').write_text('def main(run, epochs: int = 2): tower().frozen(other()); tower.needs([])')
    assert find_recipe(str(tmp_path / 'own.py')).needed(dict(epochs=2)) == []


@pytest.mark.parametrize('call', ['frozen(other())', 'frozen()', 'frozen(1)', 'frozen("a", b=2)', 'needs("kd", **{})'])
def test_a_call_that_only_execution_understands_is_named_with_its_line(tmp_path, call):
    (tmp_path / 'own.py').write_text(f'def main(run, epochs: int = 2):\n    run.{call}')
    with pytest.raises(KdfastError, match=rf'own.py, line 2: arguments of run.{call.split("(")[0]} must be plain'):
        find_recipe(str(tmp_path / 'own.py')).needed(dict(epochs=2))
