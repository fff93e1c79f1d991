"Read recipes from their source, without executing it: purpose, options, upstream runs."

import ast
import difflib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.core.projects import project_of_file
from kdfast.runs.needs import asked_by_call, find_calls, needed_run
from kdfast.runs.options import OPTIMIZERS, SETTINGS, Option, check_value, option_flag
from kdfast.runs.signature import check_is_read, find_main, first_line, read_options

STUDY = ['teacher', 'baseline', 'kd', 'hint', 'exp1', 'exp2']  # in the order of the report's table
MAX_NAME = 120  # characters of a directory's name


@dataclass(frozen=True)
class Recipe:
    "One way to train, read from a file."

    name: str
    purpose: str  # The first line of the file's docstring
    source: str
    file: Path
    options: list[Option]
    needs: list[ast.Call]  # The calls in its main that ask for other runs
    takes_trained: bool = False  # Whether its main calls `run.as_given`, for a network that is not trained
    line: int = 0  # On which the definition of main begins

    def main(self) -> Callable:
        "Return the function; imports fastai. Raises KdfastError unless its options are those read."
        function = project_of_file(self.file).function('main')
        check_is_read(function, self.file, self.line, self.options)
        return function

    @property
    def settings(self) -> list[Option]:
        "Return the settings of every training for which `main` has no parameter."
        own = {option.name for option in self.options}
        return [setting for setting in SETTINGS if setting.name not in own]

    def resolve(
        self,
        given: dict,  # Arguments and settings by name
    ) -> dict:
        "Return every argument by name, given or default, and the settings that differ. Raises KdfastError."
        options = {option.name: option for option in (*self.options, *self.settings)}
        for name, value in given.items():
            if name not in options:
                raise self.unknown(name)
            self.check(options[name], value)
        for option in self.options:
            if option.name not in given and isinstance(option.default, int | float):
                self.check(option, option.default)
        return self.of_main(given) | self.settings_in(given)

    def check(
        self,
        option: Option,  # Of this recipe
        value: object,  # Given for it, or its default
    ):
        "Raise KdfastError for a value of another type, or out of range."
        option.check_type(self.name, value)
        if not (option.name == 'epochs' and value == 0 and self.takes_trained):
            check_value(self.name, option.name, value)

    def of_main(
        self,
        arguments: dict,  # By name; missing ones are defaults
    ) -> dict:
        "Return the arguments of `main`, without settings."
        return {option.name: arguments.get(option.name, option.default) for option in self.options}

    def settings_in(
        self,
        arguments: dict,  # By name
    ) -> dict:
        "Return the settings among the arguments that are not defaults."
        return changed_values(self.settings, arguments)

    def needed(
        self,
        arguments: dict,  # All arguments of a run
    ) -> list[tuple[str, dict]]:  # Recipe and arguments of each; without a teacher that is a run already
        "Return the upstream runs that a run with these arguments and settings needs. Raises KdfastError."
        asked = [asked_by_call(call, arguments, self.file) for call in self.needs]
        settings = self.settings_in(arguments)
        needed = [(name, needed_run(given, settings)) for name, given in filter(None, asked)]
        return [(name, given) for name, given in needed if given is not None]

    def folder_name(
        self,
        arguments: dict,  # All arguments of a run
    ) -> str:
        """Return the name of a run: the recipe and the arguments that are not defaults, as in exp1,T=6.0.

        The end of a long name is replaced by a hash.
        """
        name = ','.join([self.name, *self.named(self.changed(arguments)).values()])
        if len(name) <= MAX_NAME:
            return name
        return f'{name[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}'

    def described(self) -> dict:
        "Return the purpose and each option's type, default, help and range, for `kdfast ls --json`."
        return dict(purpose=self.purpose, options=[option.described() for option in self.options])

    def changed(
        self,
        arguments: dict,  # By name; missing ones are defaults
    ) -> dict:
        "Return the arguments and settings that are not defaults."
        return changed_values([*self.options, *self.settings], arguments)

    def named(
        self,
        arguments: dict,  # By name
    ) -> dict[str, str]:
        "Return ARGUMENT=VALUE of each argument, in characters that are allowed in a directory's name."
        return {name: re.sub(r'[^\w=+. -]', '_', f'{name}={value}') for name, value in arguments.items()}

    def unknown(
        self,
        name: str,  # An option that this recipe does not have
        common: tuple = (),  # Names of options that all recipes have
    ) -> KdfastError:
        "Return the error for an unknown option, with the most similar option."
        words = {word.lower(): option.name for option in self.options for word in re.findall(r"\w{4,}", option.help)}
        names = [*(option.name for option in (*self.options, *self.settings)), *common]
        words |= dict.fromkeys(OPTIMIZERS if 'optimizer' in names else [], 'optimizer')
        words |= {''.join(word[0] for word in name.split('_')): name for name in names if '_' in name}  # bs: batch_size
        words |= {name: name for name in names}
        near = difflib.get_close_matches(name.lower(), words, n=1)
        if near:
            hint = f'did you mean {option_flag(words[near[0]])}?'
        else:
            hint = f'it has {", ".join(map(option_flag, names))}'
        return KdfastError(f'{name} is not an option of {self.name}; {hint}')


def changed_values(
    options: list[Option],  # Of a recipe
    arguments: dict,  # By name; missing ones are defaults
) -> dict:
    "Return the arguments of these options that are not defaults."
    return {o.name: arguments[o.name] for o in options if arguments.get(o.name, o.default) != o.default}


def find_recipe(
    name: str,  # Of a recipe of kdfast, or the path of a file
) -> Recipe:
    "Return a recipe. Raises KdfastError, with similar names, if there is none."
    file = Path(name)
    if file.suffix == '.py':
        if not file.is_file():
            raise KdfastError(f'no recipe file at {name}')
        if file.stem in recipe_names() and not file.resolve().is_relative_to(recipes_folder()):
            raise KdfastError(
                f'{name} has the name of a recipe of kdfast, {file.stem}, so that their runs would be mixed up: '
                'rename the file'
            )
        return read_recipe(file)
    if name not in recipe_names():
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        if near:
            hint = f'did you mean {near[0]}?'
        else:
            hint = f'there are {", ".join(recipe_names())}, or the path of a .py file'
        raise KdfastError(f'no recipe {name}; {hint}')
    return read_recipe(recipes_folder() / f'{name}.py')


def recipes_folder() -> Path:
    "Return the directory of kdfast's recipes: inside the installed package, beside it in a checkout."
    installed, checkout = (parent / 'recipes' for parent in Path(__file__).resolve().parents[1:3])
    return installed if installed.is_dir() else checkout


def recipe_names() -> list[str]:
    "Return the names of kdfast's recipes, those of the study first and in its order."
    return sorted((file.stem for file in recipes_folder().glob('[!_]*.py')), key=study_order)


def study_order(
    name: str,  # Of a recipe, or of its run directories
) -> tuple:
    "Return a sort key: the study's recipes in the order of the report's table, then all others by name."
    recipe = name.split(',')[0]
    return STUDY.index(recipe) if recipe in STUDY else len(STUDY), name


def read_recipe(
    file: Path,  # Of Python source
) -> Recipe:
    "Read a recipe from a file. Raises KdfastError if the file is no recipe."
    try:
        source = decode_source(file.read_bytes())
        tree = ast.parse(source)
        compile(source, file, 'exec')  # finds more errors, such as two parameters of one name
    except SyntaxError as e:
        raise KdfastError(f'{file}, line {e.lineno or 1}: {e.msg}') from e
    except ValueError as e:  # bytes that are no text
        raise KdfastError(f'{file} is not Python source: {e}') from e
    main = find_main(file, tree)
    calls = [node for node in ast.walk(main) if isinstance(node, ast.Call)]
    takes_trained = any(getattr(call.func, 'attr', None) == 'as_given' for call in calls)
    purpose = (ast.get_docstring(tree) or '').partition('\n')[0]
    options = read_options(file, source, main)
    return Recipe(file.stem, purpose, source, file, options, find_calls(main), takes_trained, first_line(main))
