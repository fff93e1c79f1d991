"What a recipe is, read from its source without running it: its purpose, and its options with their meaning."

import ast
import difflib
import hashlib
import re
import tokenize
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.core.names import is_run
from kdfast.core.source import of_file
from kdfast.runs.options import RANGES, TYPES, Option, check_value, option_flag

STUDY = ['teacher', 'baseline', 'kd', 'hint', 'exp1', 'exp2']  # in the order of the report's table
LONGEST = 120  # characters of a folder's name


@dataclass(frozen=True)
class Recipe:
    "One way to train."

    name: str
    purpose: str  # The first line of the file's docstring
    source: str
    file: Path
    options: list[Option]
    needs: list[ast.Call]  # What its main asks of `run.needs`

    def main(self):
        "The function itself; importing it imports fastai"
        return of_file(self.file).function('main')

    def resolve(self, given):
        "Every argument by name: the given ones checked, the others at their defaults. Raises KdfastError."
        for name, value in given.items():
            if name not in {o.name for o in self.options}:
                raise self.unknown(name)
            check_value(self.name, name, value)
        return {o.name: given.get(o.name, o.default) for o in self.options}

    def needed(self, arguments):
        "(recipe, the arguments it is given) of each run that has to be trained before a run with these arguments. Raises KdfastError."

        def plain(node):
            return arguments[node.id] if isinstance(node, ast.Name) and node.id in arguments else ast.literal_eval(node)

        try:
            needs = [
                (plain(call.args[0]), {word.arg: plain(word.value) for word in call.keywords}) for call in self.needs
            ]
        except (ValueError, IndexError) as e:
            raise KdfastError(
                f'{self.file}: what run.needs is given must be plain text, numbers, or parameters of main'
            ) from e
        return [
            (name, given) for name, given in needs if not is_run(given.get('network', ''))
        ]  # a teacher that is a run is trained

    def folder_name(self, arguments):
        "The recipe's name, followed by every argument that is not its default: exp1,T=6.0. What would be very long ends in a hash instead"
        name = ','.join([self.name, *self.named(self.changed(arguments)).values()])
        return (
            name if len(name) <= LONGEST else f'{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'
        )

    def described(self) -> dict:
        "For a program to read: the purpose, and each option's type, default, meaning and range."
        options = [
            dict(
                name=o.name,
                type=o.type.__name__,
                default=o.default,
                help=o.help,
                range=RANGES.get(o.name, (None, None))[1],
            )
            for o in self.options
        ]
        return dict(purpose=self.purpose, options=options)

    def changed(self, arguments):
        "The arguments that are not their defaults"
        return {o.name: arguments[o.name] for o in self.options if arguments.get(o.name, o.default) != o.default}

    def named(self, arguments):
        "Each argument as the name of a folder has it: without what paths, networks' and layers' names may hold"
        return {name: re.sub(r'[^\w=+. -]', '_', f'{name}={value}') for name, value in arguments.items()}

    def unknown(self, name, common=()):
        "The error for an option that this recipe has not got, with the nearest that it has"
        words = {word.lower(): o.name for o in self.options for word in re.findall(r"\w{4,}", o.help)} | {
            name: name for name in (*(o.name for o in self.options), *common)
        }
        near = difflib.get_close_matches(name.lower(), words, n=1)
        hint = (
            f'did you mean {option_flag(words[near[0]])}?'
            if near
            else f'it has {", ".join(option_flag(o.name) for o in self.options)}'
        )
        return KdfastError(f'{name} is not an option of {self.name}; {hint}')


def find_recipe(
    name: str,  # A recipe of kdfast, or the path of a file
) -> Recipe:
    "The recipe of that name or file. Raises KdfastError, with the nearest names, where there is none."
    file = Path(name)
    if file.suffix == '.py':
        if not file.is_file():
            raise KdfastError(f'no recipe file at {name}')
        if file.stem in recipe_names() and not file.resolve().is_relative_to(recipes_folder()):
            raise KdfastError(
                f'{name} has the name of a recipe of kdfast, {file.stem}, and its runs would be taken for that one\'s: '
                'rename the file'
            )
        return read_recipe(file)
    if name not in recipe_names():
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = (
            f'did you mean {near[0]}?' if near else f'there are {", ".join(recipe_names())}, or the path of a .py file'
        )
        raise KdfastError(f'no recipe {name}; {hint}')
    return read_recipe(recipes_folder() / f'{name}.py')


def recipes_folder() -> Path:
    "Where the recipes of kdfast lie: inside the installed package, beside it in a checkout."
    installed, checkout = (parent / 'recipes' for parent in Path(__file__).resolve().parents[1:3])
    return installed if installed.is_dir() else checkout


def recipe_names() -> list[str]:
    "All recipes of kdfast, those of the study first and in its order."
    return sorted((file.stem for file in recipes_folder().glob('[!_]*.py')), key=study_order)


def study_order(name):
    "Sorts a recipe, or a folder named after one, as the report's table does"
    recipe = name.split(',')[0]
    return STUDY.index(recipe) if recipe in STUDY else len(STUDY), name


def read_recipe(file) -> Recipe:
    "The recipe in `file`. Raises KdfastError where the file is no recipe."
    source = file.read_text()
    try:
        tree = ast.parse(source)
    except SyntaxError as e:
        raise KdfastError(f'{file}, line {e.lineno}: {e.msg}') from e
    main = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == 'main'), None)
    if main is None:
        raise KdfastError(f'{file} has no function main: a recipe is a file with `def main(run, …)`')
    comments = {
        t.start[0]: t.string.lstrip('# ')
        for t in tokenize.generate_tokens(StringIO(source).readline)
        if t.type == tokenize.COMMENT
    }
    parameters = main.args.args[1:]  # the first is the run
    defaults = main.args.defaults
    if len(defaults) < len(parameters):
        raise KdfastError(f'{file}, line {main.lineno}: every parameter of main but the first needs a default')
    options = [
        read_option(file, p, d, comments.get(p.lineno, '')) for p, d in zip(parameters, defaults[-len(parameters) :])
    ]
    purpose = (ast.get_docstring(tree) or '').partition('\n')[0]
    needs = [
        node for node in ast.walk(main) if isinstance(node, ast.Call) and getattr(node.func, 'attr', None) == 'needs'
    ]
    return Recipe(file.stem, purpose, source, file, options, needs)


def read_option(file, parameter, default, help):
    said = KdfastError(
        f'{file}, line {parameter.lineno}: the default of {parameter.arg} must be a plain number or text, True or False'
    )
    try:
        value = ast.literal_eval(default)
    except ValueError as e:
        raise said from e
    if type(value) not in TYPES.values():
        raise said
    kind = TYPES.get(getattr(parameter.annotation, 'id', None), type(value))
    return Option(parameter.arg, kind, kind(value), help)
