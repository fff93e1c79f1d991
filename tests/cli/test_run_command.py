"The command run: copies of recipes, data of equal names, unfinished, failing and interrupted runs."

import json
import shutil

import pytest
from conftest import draw, recipe
from safetensors.torch import load_file


def test_a_copied_recipe_runs(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kdfast('cp', 'baseline', 'mine.py').status == 0
    source = (tmp_path / 'mine.py').read_text()
    (tmp_path / 'mine.py').write_text(
        source.replace('epochs: int = 6', 'epochs: int = 1').replace('Baseline', 'My own')
    )
    done = kdfast('run', './mine.py', '--data', images, '--json')
    assert done.status == 0, done.err
    assert json.loads(done.out)['epochs'] == 1
    assert (tmp_path / 'runs' / 'tiny' / 'mine' / '0' / 'recipe.py').read_text() == (tmp_path / 'mine.py').read_text()
    (tmp_path / 'mine.py').write_text(source)
    changed = kdfast('run', './mine.py', '--data', images)
    assert changed.status == 2 and 'another version of mine.py' in changed.err


def test_other_images_of_the_same_name_have_runs_of_their_own(study, kdfast, tmp_path):
    from conftest import draw

    shutil.copytree(study, tmp_path / 'runs' / 'tiny')
    draw(tmp_path / 'tiny' / 'train', 24, seed=5)
    draw(tmp_path / 'tiny' / 'valid', 12, seed=6)

    def others():
        return sorted(f.name for f in (tmp_path / 'runs').iterdir() if f.name != 'tiny')

    done = kdfast('run', 'baseline', '--epochs', 1, '--data', tmp_path / 'tiny', '--runs', tmp_path / 'runs')
    assert (
        done.status == 0
        and 'has runs on other images; runs on these are in' in done.err
        and len(others()) == 1
        and others()[0].startswith('tiny-')
    ), done.err
    assert (
        'nothing to train'
        in kdfast('run', 'baseline', '--epochs', 1, '--data', tmp_path / 'tiny', '--runs', tmp_path / 'runs').err
        and len(others()) == 1
    )


def test_a_run_without_checkpoints_starts_over(kdfast, images, tmp_path):
    folder = tmp_path / 'tiny' / 'baseline,epochs=1' / '0'
    folder.mkdir(parents=True)
    (folder / 'run.json').write_text('{"status": "running"}')
    (folder / 'left.over').write_text('x')
    assert kdfast('run', 'baseline', '--epochs', 1, '--data', images, '--runs', tmp_path).status == 0
    assert json.loads((folder / 'run.json').read_text())['status'] == 'finished' and not (folder / 'left.over').exists()


def test_a_failing_recipe_is_on_record_and_its_traceback_is_for_debug(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / 'mine.py', 'raise RuntimeError("no luck")')
    done = kdfast('run', './mine.py', '--data', images)
    assert done.status == 2 and done.err == f'kdfast: error: {tmp_path / "mine.py"}, line 7: RuntimeError: no luck\n'
    state = json.loads((tmp_path / 'runs' / 'tiny' / 'mine' / '0' / 'run.json').read_text())
    assert state['status'] == 'failed' and 'no luck' in state['reason']
    with pytest.raises(RuntimeError, match='no luck'):
        kdfast('run', './mine.py', '--data', images, '--debug')


def test_an_interrupted_run_says_so_and_starts_again(kdfast, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe(tmp_path / 'mine.py', '__import__("signal").raise_signal(2)')
    done = kdfast('run', './mine.py', '--data', images)
    assert done.status == 130 and done.err.endswith('kdfast: error: interrupted; repeat the command to continue\n')
    assert json.loads((tmp_path / 'runs' / 'tiny' / 'mine' / '0' / 'run.json').read_text())['status'] == 'interrupted'


def test_runs_with_holdout_have_their_own_directory(kdfast, images, tmp_path):
    done = kdfast('run', 'baseline', '--epochs', 1, '--data', images, '--holdout', 0.25, '--runs', tmp_path)
    assert done.status == 0, done.err
    assert (
        json.loads((tmp_path / 'tiny,holdout=0.25' / 'baseline,epochs=1' / '0' / 'result.json').read_text())['data']
        == 'tiny,holdout=0.25'
    )
    assert f'kdfast run kd --epochs 1 --data {images} --holdout 0.25 --runs {tmp_path}' in done.out


def test_progressive_resizing_changes_the_size_of_images(kdfast, images, tmp_path):
    "Training sees 4×4 at first and 8×8 in the end, in every recipe alike; what the teacher said of them is asked once"
    asked = ['--data', images, '--grow', 0.5, '--runs', tmp_path]
    for name in ('kd', 'exp2'):
        done = kdfast('run', name, '--epochs', 2, *asked)
        assert done.status == 0, done.err
        following = f'kdfast run baseline --epochs 2 --data {images} --grow 0.5 --runs {tmp_path}'
        if name == 'kd':
            assert following in done.out
    (outputs,) = (tmp_path / 'tiny,grow=0.5' / 'teacher' / '0' / 'outputs').glob('*.safetensors')
    assert len(load_file(outputs)['batches']) == 2 * 9 + 1
    refused = kdfast('run', 'kd', '--grow', 1.5, '--data', images)
    assert (
        refused.status == 2
        and "--grow 1.5: expected a fraction of height and width, above 0 and up to 1" in refused.err
    )


@pytest.mark.parametrize('command', ['export', 'predict'])
@pytest.mark.parametrize('trusted', [False, True])
def test_code_of_a_run_is_trusted_only_where_it_is_asked_for(
    study, kdfast, images, tmp_path, monkeypatch, command, trusted
):
    from kdfast.models import saved

    files = []
    monkeypatch.setattr(saved, 'trust_code', files.append)
    rest = ['--to', tmp_path / 'x.safetensors'] if command == 'export' else [next(images.rglob('*.png'))]
    flags = ['--trust-code'] if trusted else []
    done = kdfast(command, 'teacher', *rest, *flags, '--data', 'tiny', '--runs', study.parent)
    assert done.status == 0, done.err
    assert files == [study / 'teacher' / '0' / 'weights.safetensors'] * trusted


def test_a_few_images_train_in_batches_that_they_fill(kdfast, tmp_path):
    for split, n in ('train', 2), ('valid', 1):
        draw(tmp_path / 'few' / split, n, seed=n)
    asked = ['run', 'baseline', '--epochs', 1, '--data', tmp_path / 'few', '--runs', tmp_path / 'runs']
    assert '6 training images are fewer than the smallest batch, 8' in kdfast(*asked).err
    done = kdfast(*asked, '--batch-size', 2)
    assert done.status == 0, done.err
