"""Commands made from recipes: the parameters of `main` are the options, their comments the help."""

import inspect
from collections.abc import Callable
from dataclasses import fields

import typer
from typer.core import TyperCommand

from kdfast.cli.app import PlainGroup
from kdfast.cli.options import DataOptions, RunOptions, expand_groups
from kdfast.core.errors import KdfastError
from kdfast.runs.options import Option, option_flag
from kdfast.runs.recipes import Recipe, find_recipe, recipe_names

SHARED_NAMES = tuple(field.name for group in (DataOptions, RunOptions) for field in fields(group))


class RecipeGroup(PlainGroup):
    "A group with one command per recipe, made from its source when it is needed."

    action: Callable  # What the commands do: action(recipe, images, options, given)

    def list_commands(self, ctx):
        "Return the names of all recipes of kdfast."
        return recipe_names()

    def get_command(self, ctx, name):
        "Return the command of a recipe, given by its name or its file."
        return recipe_command(find_recipe(name), self.action)


def recipe_command(
    recipe: Recipe,  # Gives the command its options and help
    action: Callable,  # Called with the recipe, DataOptions, RunOptions, and the arguments of `main` by name
) -> TyperCommand:
    "Return the command that does something with a recipe. Raises KdfastError if option names collide."
    check_names(recipe)

    def command(images: DataOptions, options: RunOptions, **given):
        action(recipe, images, options, given)

    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(recipe.name, help=recipe.purpose)(expand_groups(command, [to_parameter(o) for o in recipe.options]))
    made = typer.main.get_command(single)
    made.recipe = recipe
    return made


def to_parameter(
    option: Option,  # Of a recipe
) -> inspect.Parameter:
    "Return the option as a parameter that Typer understands. Every flag has a negative form."
    flag = option_flag(option.name)
    if option.type is bool:
        flag += f'/{option_flag(f"no_{option.name}")}'
    default = typer.Option(option.default, flag, help=option.described())
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option.type)


def check_names(
    recipe: Recipe,  # Read from source
):
    "Raise KdfastError if a parameter of `main` has the name of a shared option, or two share a flag."
    negative = {f'no_{o.name}' for o in recipe.options if o.type is bool}
    taken = {*SHARED_NAMES, 'help', 'debug', *negative}
    for option in recipe.options:
        if option.name in taken:
            which = 'an option of every recipe' if option.name in SHARED_NAMES else 'already an option'
            flag = option_flag(option.name)
            raise KdfastError(f'{recipe.file}: {flag} is {which}; rename this parameter of main')
