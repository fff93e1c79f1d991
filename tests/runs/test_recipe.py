import pytest

from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import STUDY, find_recipe, recipe_names

MINE = '''"Mine."
from kdfast.all import *

def main(
    run:Run, # This run
    epochs:int=3, # Passes # over the images
    T:float=4, # Temperature of both softmaxes
    words:str='a#b', # Any text
): pass
'''


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(MINE)
    return file


def test_the_signature_is_the_configuration(mine):
    found = find_recipe(str(mine))
    assert (found.name, found.purpose) == ('mine', 'Mine.')
    assert [(o.name, o.type, o.default, o.help) for o in found.options] == [
        ('epochs', int, 3, 'Passes # over the images'),
        ('T', float, 4.0, 'Temperature of both softmaxes'),
        ('words', str, 'a#b', 'Any text'),
    ]
    assert found.resolve(dict(T=6.0)) == dict(epochs=3, T=6.0, words='a#b')


def test_only_what_differs_names_the_folder():
    exp1 = find_recipe('exp1')
    assert exp1.folder_name(exp1.resolve({})) == 'exp1'
    assert exp1.folder_name(exp1.resolve(dict(T=6.0, epochs=3))) == 'exp1,epochs=3,T=6.0'
    at = find_recipe('at')
    assert (
        at.folder_name(at.resolve(dict(layers='a:b,c:d', student='x/y.py:z'))) == 'at,student=x_y.py_z,layers=a_b_c_d'
    )  # its commas part arguments
    long = [exp1.folder_name(exp1.resolve(dict(student=f'{"a" * 300}.py:{name}'))) for name in 'ab']
    assert long[0] != long[1] and all(len(name) == 120 for name in long)


def test_the_studys_recipes_come_in_its_order_and_say_what_they_are_for():
    assert recipe_names()[:6] == STUDY
    assert all(find_recipe(name).purpose and all(o.help for o in find_recipe(name).options) for name in recipe_names())


@pytest.mark.parametrize(
    'name,said',
    [
        ('exp3', 'did you mean exp2'),
        ('techer', 'did you mean teacher'),
        ('zzz', 'there are teacher'),
        ('./no.py', 'no recipe file at ./no.py'),
    ],
)
def test_unknown_recipes(name, said):
    with pytest.raises(KdfastError, match=said):
        find_recipe(name)


@pytest.mark.parametrize(
    'option,said',
    [
        ('temprature', 'did you mean --T'),
        ('epoch', 'did you mean --epochs'),
        ('xyzzy', 'it has --epochs, --lr, --optimizer, --T'),
    ],
)
def test_unknown_options(option, said):
    assert said in find_recipe('exp1').unknown(option).message


@pytest.mark.parametrize(
    'option,value',
    [
        ('epochs', 0),
        ('epochs', -1),
        ('lr', float('nan')),
        ('lr', float('inf')),
        ('lr', 0.0),
        ('lr', -1.0),
        ('T', 0.0),
        ('alpha', 1.5),
        ('alpha', -0.5),
        ('T', float('inf')),
        ('T', 1e30),
        ('T', 1e-30),
    ],
)
def test_values_out_of_range(option, value):
    with pytest.raises(KdfastError, match=f'--{option} .* out of range'):
        find_recipe('exp1').resolve({option: value})


@pytest.mark.parametrize(
    'source,said',
    [
        ('x = 1', 'has no function main'),
        ('def main(run, a): pass', 'needs a default'),
        ('def main(run, a=[b]): pass', 'plain number'),
        ('def main(run, a=[1, 2]): pass', 'plain number'),
        ('def main(:', 'line 1'),
    ],
)
def test_files_that_are_no_recipe(tmp_path, source, said):
    (tmp_path / 'no.py').write_text(source)
    with pytest.raises(KdfastError, match=said):
        find_recipe(str(tmp_path / 'no.py'))


def test_a_file_named_like_a_recipe_of_kdfast_is_refused(tmp_path):
    (tmp_path / 'exp1.py').write_text(MINE)
    with pytest.raises(KdfastError, match='rename the file'):
        find_recipe(str(tmp_path / 'exp1.py'))
