"""Commands made from recipes: the parameters of `main` are the options, their comments the help."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Optional

import typer
from typer.core import TyperCommand

from kdfast.cli.app import SECTIONS, TRAINING, PlainGroup, SectionedCommand, refuse_empty, sections_of
from kdfast.cli.options import DataOptions, RunOptions, expand_groups
from kdfast.core.errors import KdfastError
from kdfast.runs.options import RANGES, SETTINGS, Option, option_flag
from kdfast.runs.recipes import Recipe, find_recipe, recipe_names

SETTING_NAMES = tuple(setting.name for setting in SETTINGS)
SHARED_NAMES = tuple(field.name for group in (DataOptions, RunOptions) for field in fields(group))


class RecipeGroup(PlainGroup):
    "A group with one command per recipe, made from its source when it is needed."

    action: Callable  # What the commands do: action(recipe, images, options, given)

    def list_commands(self, ctx):
        "Return the names of all recipes of kdfast."
        return recipe_names()

    def get_command(self, ctx, name):
        "Return the command of a recipe, given by its name or its file."
        refuse_empty('RECIPE', name, required=True)
        return recipe_command(find_recipe(name), self.action)

    def format_options(self, ctx, formatter):
        "Write the recipes, and the options that all of them have."
        super().format_options(ctx, formatter)
        shared = recipe_command(Recipe('RECIPE', '', '', Path(), [], []), self.action)
        sections = sections_of(shared, ctx)
        for title in SECTIONS:
            with formatter.section(f'{title}, of every recipe'):
                formatter.write_dl([parameter.get_help_record(ctx) for parameter in sections[title]])


def recipe_command(
    recipe: Recipe,  # Gives the command its options and help
    action: Callable,  # Called with the recipe, DataOptions, RunOptions, and the arguments of `main` by name
) -> TyperCommand:
    "Return the command that does something with a recipe. Raises KdfastError if option names collide."
    check_names(recipe)

    def command(data_options: DataOptions, run_options: RunOptions, **given):
        action(recipe, data_options, run_options, {name: value for name, value in given.items() if value is not None})

    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    own = [to_parameter(option, TRAINING if option.name in SETTING_NAMES else None) for option in recipe.options]
    expanded = expand_groups(command, [*own, *setting_parameters(recipe.settings)])
    single.command(recipe.name, cls=SectionedCommand, help=recipe.purpose)(expanded)
    made = typer.main.get_command(single)
    made.recipe = recipe
    is_own = recipe.name not in recipe_names()  # whose text may be anything, and none of it
    made.may_be_empty = {o.name for o in recipe.options if is_own and o.type is str and o.name not in RANGES}
    return made


def to_parameter(
    option: Option,  # Of a recipe
    panel: str | None = None,  # Section of the help
) -> inspect.Parameter:
    "Return the option as a parameter that Typer understands. Every flag has a negative form."
    flag = option_flag(option.name)
    if option.type is bool:
        flag += f'/{option_flag(f"no_{option.name}")}'
    metavar = '|'.join(map(str, option.choices)) or None
    default = typer.Option(option.default, flag, help=option.full_help, rich_help_panel=panel, metavar=metavar)
    annotation = option.type if option.default is not None else Optional[option.type]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def setting_parameters(
    settings: Sequence[Option] = SETTINGS,  # Those of a recipe; default: all
) -> list[inspect.Parameter]:
    "Return settings of every training as parameters that Typer understands; None if they are not given."
    return [to_parameter(setting, TRAINING) for setting in settings]


def check_names(
    recipe: Recipe,  # Read from source
):
    "Raise KdfastError if a parameter of `main` has the name of a shared option, or two share a flag."
    negative = {f'no_{o.name}' for o in recipe.options if o.type is bool}
    taken = {*SHARED_NAMES, 'help', 'debug', 'data_options', 'run_options', *negative}
    for option in recipe.options:
        if option.name in taken:
            which = 'an option of every recipe' if option.name in SHARED_NAMES else 'already an option'
            flag = option_flag(option.name)
            raise KdfastError(f'{recipe.file}: {flag} is {which}; rename this parameter of main')
