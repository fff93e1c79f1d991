"Parameters of a recipe's main become options of their declared types, or the file is refused."

import pytest

from kdfast.cli.entry import describe
from kdfast.cli.recipes import recipe_command
from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import find_recipe, read_recipe

HEAD = '"Mine."\nfrom typing import *\nfrom functools import partial, wraps\n'


def read(folder, source):
    "A recipe of this source"
    file = folder / 'mine.py'
    file.write_text(HEAD + source)
    return read_recipe(file)


def values(recipe, *words):
    "All arguments of main that a command line gives"
    found = []
    made = recipe_command(recipe, lambda recipe, images, options, given: found.append(given))
    made(list(words), standalone_mode=False)
    own = recipe.resolve(found[0])
    return {option.name: own[option.name] for option in recipe.options}


KINDS = {  # annotations: the type, the values that it allows, and whether it allows None
    '{}: int': (int, None, False),
    '{}: float': (float, None, False),
    '{}: str': (str, None, False),
    '{}: bool': (bool, None, False),
    '{}: "int"': (int, None, False),
    '{}: Optional[float]': (float, None, True),
    '{}: int | None': (int, None, True),
    '{}: None | str': (str, None, True),
    '{}: Union[bool, None]': (bool, None, True),
    '{}: Annotated[int, 3]': (int, None, False),
    '{}: Literal["a", "b"]': (str, ('a', 'b'), False),
    '{}: Literal[1, -2]': (int, (1, -2), False),
    '{}: Optional[Literal["a"]]': (str, ('a',), True),
    '{}: Literal["a", None]': (str, ('a',), True),
}
DEFAULTS = [3, 1, 3.7, -1.5, True, 'a', 'no', None, 1e999]
GIVEN = ['2', '1', '-2', '2.5', 'a', 'zzz', 'inf']


def expected(value, kind, choices, optional):
    "The value that main gets for a default, or the exception for its refusal"
    if value is None:
        return None if optional else KdfastError
    if type(value) is not kind and not (kind is float and type(value) is int) or choices and value not in choices:
        return KdfastError
    return KdfastError if value == 1e999 else kind(value)


def parsed(text, kind):
    "The value that a command line's word has, or the exception"
    try:
        return kind(text)
    except ValueError:
        return ValueError


@pytest.mark.parametrize('annotation', KINDS)
def test_the_declared_type_decides_over_the_default(tmp_path, annotation):
    for default in DEFAULTS:
        wanted = expected(default, *KINDS[annotation])
        source = f'def main(run, {annotation.format("x")} = {"1e999" if default == 1e999 else repr(default)}): pass'
        if wanted is KdfastError:
            with pytest.raises(KdfastError, match=r'\bx\b.*expected'):
                values(read(tmp_path, source))
        else:
            found = values(read(tmp_path, source))['x']
            assert (type(found), found) == (type(wanted), wanted)


@pytest.mark.parametrize('annotation', [a for a, (kind, *_) in KINDS.items() if kind is not bool])
def test_the_declared_type_decides_over_the_command_line(tmp_path, annotation):
    kind, choices, optional = KINDS[annotation]
    default = choices[0] if choices else kind(1)
    for form in ('run, {}', 'run, *, {}', 'run, /, {}', 'run, y=1, *rest, {}'):
        parameter = f'{annotation.format("x")} = {default!r}'
        recipe = read(tmp_path, f'def main({form.format(parameter)}): pass')
        for text in GIVEN:
            wanted = expected(parsed(text, kind), kind, choices, optional)
            if wanted is KdfastError or wanted == float('inf'):
                with pytest.raises(Exception) as e:  # noqa: B017  # click's own for a word that is no number
                    values(recipe, '--x', text)
                status, said = describe(e.value)
                assert status == 2 and '--x' in said
            else:
                found = values(recipe, '--x', text)['x']
                assert (type(found), found) == (kind, wanted)


@pytest.mark.parametrize('name,value', [('x', 'a'), ('x', 1.5), ('x', True), ('x', None), ('words', 3), ('words', 'c')])
def test_values_of_other_types_are_refused_from_python_too(tmp_path, name, value):
    recipe = read(tmp_path, 'def main(run, x: int = 1, words: Literal["a", "b"] = "a", share: float = 2): pass')
    with pytest.raises(KdfastError, match='of mine is .*expected'):
        recipe.resolve({name: value})
    assert recipe.resolve(dict(share=3, words='b'))['share'] == 3


@pytest.mark.parametrize(
    'parameters,said',
    [
        ('run, x: Path = "a/b"', 'the type of x is Path: expected int'),
        ('run, x: list = 1', 'the type of x is list'),
        ('run, x: int | str = 1', r'the type of x is int \| str'),
        ('run, x: Literal[1, "a"] = 1', 'the type of x is Literal'),
        ('run, x: Literal[int] = 1', 'the type of x is Literal'),
        ('run, x: "a b" = 1', 'the type of x'),
        ('run, x: "a\\0" = 1', 'the type of x'),
        ('run, x: Literal[{[]: 1}] = 1', 'the type of x'),
        ('run, x={[]: 1}', 'plain number'),
        ('run, x: float = 1' + 400 * '0', 'expected float'),
        ('run, x=1, /', 'x is positional only'),
        ('run, *, x', 'needs a default'),
        ('*, epochs: int = 1', 'no parameter for the run'),
        ('', 'no parameter for the run'),
        ('run, x=1, x=2', 'duplicate argument'),
        ('run, lr: str = "a"', 'the type of lr is str: expected float'),
        ('run, student: int = 3', 'the type of student is int: expected str'),
        ('run, epochs: float = 1.5', 'the type of epochs is float: expected int'),
        ('run, epochs=1.5', 'the default of epochs is 1.5: expected int'),
        ('run, hint: Literal[1] = 1', 'the type of hint is int: expected str'),
        ('run, T: Optional[int] = None', 'the type of T is int: expected float'),
    ],
)
def test_parameters_that_cannot_be_options(tmp_path, parameters, said):
    with pytest.raises(KdfastError, match=said):
        read(tmp_path, f'def main({parameters}): pass')


@pytest.mark.parametrize('parameter', ['lr: float = -1.0', 'alpha: float = 2.0', 'epochs: int = 0', 'x: float = 1e999'])
def test_a_default_out_of_range_is_refused_before_training(tmp_path, parameter):
    with pytest.raises(KdfastError, match='out of range'):
        read(tmp_path, f'def main(run, {parameter}): pass').resolve({})


@pytest.mark.parametrize('name', ['images', 'options', 'given', 'command', 'recipe', 'ctx', 'run', 'data_options'])
def test_names_that_the_command_uses_itself(tmp_path, name):
    recipe = read(tmp_path, f'def main(first, {name}: int = 3): pass')
    if name == 'data_options':
        with pytest.raises(KdfastError, match='rename this parameter'):
            values(recipe, '--data-options', '4')
    else:
        assert values(recipe, f'--{name}', '4') == {name: 4}


def test_arguments_of_needs_that_are_no_plain_values(tmp_path):
    for argument in ('{[]: 1}', 'other()', '*words'):
        recipe = read(tmp_path, f'def main(run): run.needs({argument})')
        with pytest.raises(KdfastError, match='plain text, numbers, or parameters'):
            recipe.needed({})


# Which main counts

LAST = 'def main(run, x=5): return x'


@pytest.mark.parametrize(
    'source',
    [
        f'def main(run, x=2): pass\n{LAST}',
        f'if True:\n    def main(run, x=2): pass\n{LAST}',
        f'main = 3\n{LAST}',
        f'from os import path as main\n{LAST}',
        f'{LAST}\nmain: object\nlist(main for main in (1, 2))\nlambda main: main',
        f'{LAST}\nclass A:\n    def main(self): pass',
        f'def same(f):\n    @wraps(f)\n    def g(*a, **k): return f(*a, **k)\n    return g\n@same\n{LAST}',
        f'@partial(lambda f: f)\n\n{LAST}',
    ],
)
def test_what_python_calls_main_gives_the_options(tmp_path, source):
    recipe = read(tmp_path, source)
    assert [(o.name, o.default) for o in recipe.options] == [('x', 5)]
    assert recipe.main()(None, **recipe.resolve({})) == 5


BINDINGS = [
    'main = lambda run, x=2: x',
    'main = partial(main, x=2)',
    'del main',
    'if True:\n    def main(run, x=2): pass',
    'try:\n    from os import path as main\nfinally: pass',
    'from os import path as main',
    'for main in (1,): pass',
    'with open(__file__) as main: pass',
    'if (main := 3): pass',
    'async def main(run, x=2): pass',
    'class main: pass',
    'match 1:\n    case main: pass',
    'try:\n    1 / 0\nexcept Exception as main: pass',
    'import os as main',
    'main, other = 1, 2',
]


@pytest.mark.parametrize('binding', BINDINGS)
def test_a_main_that_only_execution_tells_is_refused(tmp_path, binding):
    with pytest.raises(KdfastError, match='line [0-9]+: main is not defined by a plain'):
        read(tmp_path, f'{LAST}\n{binding}')


HIDDEN = [
    'globals()["main"] = lambda run, x=5: x',
    'main.__defaults__ = (2,)',
    'def change():\n    global main\n    main = lambda run, x=5: x\nchange()',
    'from other import *',
]


@pytest.mark.parametrize('change', HIDDEN)
def test_a_main_that_execution_changes_is_refused_before_it_is_called(tmp_path, change):
    (tmp_path / 'other.py').write_text('def main(run, x=5): pass')
    with pytest.raises(KdfastError, match='executing the file makes main something else'):
        read(tmp_path, f'{LAST}\n{change}').main()


def test_a_decorator_without_wraps_is_refused(tmp_path):
    with pytest.raises(KdfastError, match='functools.wraps'):
        read(tmp_path, f'def other(f): return lambda run, x=7: x\n@other\n{LAST}').main()


def test_recipes_of_kdfast_are_what_was_read():
    assert all(callable(find_recipe(name).main()) for name in ('kd', 'hint', 'exp2'))


@pytest.mark.parametrize('content', ['"é"\nx = 1'.encode('latin1'), b'x = "\0"', b'# coding: none\nx = 1'])
def test_bytes_that_are_no_source(tmp_path, content):
    (tmp_path / 'mine.py').write_bytes(content)
    with pytest.raises(KdfastError, match='mine.py'):
        read_recipe(tmp_path / 'mine.py')
