"""The Typer app, its help pages, and how commands print. Imports nothing that takes long."""

import json
from collections.abc import Collection
from contextlib import nullcontext
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

import kdfast
from kdfast.core.errors import KdfastError

TRAIN, RESULTS, MODELS, DATA = PANELS = ('Train', 'Results', 'Models', 'Data')  # sections of `kdfast --help`, in order
TRAINING, IMAGES = SECTIONS = ('Training', 'Data')  # sections of the help of a command, after its other options
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class PlainGroup(TyperGroup):
    "A group of commands whose help wraps long descriptions, where click would cut them off."

    def format_commands(self, ctx, formatter):
        "Write one section for each panel, in the order of `list_commands`."
        sections = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if not command.hidden:
                rows = sections.setdefault(command.rich_help_panel or 'Commands', [])
                rows.append((name, command.get_short_help_str(limit=10**4)))
        width = max(len(name) for rows in sections.values() for name, _ in rows)
        for panel, rows in sections.items():
            with formatter.section(panel):
                formatter.write_dl([(name.ljust(width), text) for name, text in rows])


class CheckedCommand(TyperCommand):
    "A command that refuses empty and blank values, which would mean a default or this directory."

    may_be_empty: Collection[str] = ()  # Parameters for which an empty text is a value as any other

    def parse_args(self, ctx, args):
        "Parse words of a command line. Raises KdfastError for an empty or blank one."
        given, *_ = self.make_parser(ctx).parse_args(args=list(args))  # before texts become paths
        for parameter in self.get_params(ctx):
            values = given.get(parameter.name)
            for value in values if isinstance(values, (list, tuple)) else [values]:
                if isinstance(value, str) and parameter.name not in self.may_be_empty:
                    is_option = parameter.param_type_name == 'option'
                    name = parameter.opts[0] if is_option else parameter.name.upper()
                    refuse_empty(name, value, parameter.required)
        return super().parse_args(ctx, args)


def refuse_empty(
    name: str,  # Of the option or argument, as its help has it
    value: str,  # As given
    required: bool,  # Whether it cannot be left out
):
    "Raise KdfastError for a value without a character that is seen."
    if not value.strip():
        found = f'is {value!r}, which is blank' if value else 'is empty'
        raise KdfastError(f'{name} {found}: give it a value{"" if required else ", or leave it out"}')


class CheckedTyper(typer.Typer):
    "An app of such commands."

    def command(self, name=None, *, cls=CheckedCommand, **settings):
        "Return a decorator that adds a command."
        return super().command(name, cls=cls, **settings)


class SectionedCommand(CheckedCommand):
    "A command whose help has a section for each panel of options, after those without a panel."

    def format_options(self, ctx, formatter):
        "Write arguments and options."
        for title, parameters in sections_of(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl([parameter.get_help_record(ctx) for parameter in parameters])


def sections_of(
    command: TyperCommand,  # Of one recipe, or another command with options
    ctx,  # Context of the command
) -> dict[str, list]:  # Parameters by title
    "Group the parameters of a command that its help shows."
    shown = [parameter for parameter in command.get_params(ctx) if parameter.get_help_record(ctx)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == 'argument']
    sections = {'Arguments': arguments} if arguments else {}
    for parameter in shown:
        if parameter not in arguments:
            sections.setdefault(parameter.rich_help_panel or 'Options', []).append(parameter)
    return dict(sorted(sections.items(), key=lambda item: SECTIONS.index(item[0]) if item[0] in SECTIONS else -1))


class MainGroup(PlainGroup):
    "The commands of kdfast, by panel; `run` comes first."

    def list_commands(self, ctx):
        "Return the names in the order of the help page."

        def position(name):
            panel = self.commands[name].rich_help_panel
            return PANELS.index(panel) if panel in PANELS else len(PANELS), name != 'run'

        return sorted(super().list_commands(ctx), key=position)


app = CheckedTyper(
    cls=MainGroup,
    help='Train students with knowledge distillation and hints, and test whether it helped.',
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def main_options(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option('--version', help='Print the version and exit.')] = False,
    debug: Annotated[bool, typer.Option('--debug', help='Show the traceback of an error.')] = False,
):
    "Print the version or the help. `main` handles --debug, which may follow any command."
    if version:
        print(f'kdfast {kdfast.__version__}')
    else:
        help_if_alone(ctx)


def help_if_alone(
    ctx: typer.Context,  # Of a group
):
    "Print the help of a group that was called without a command."
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


# Printing: results go to stdout, everything else to stderr


def print_line(
    message: str,  # Printed as it is, without markup and line breaks, so that it can be copied
):
    "Print one line of a result to stdout."
    out.print(message, soft_wrap=True, markup=False)


def print_note(
    message: str,  # Printed without markup and line breaks
):
    "Print one line about the progress to stderr."
    err.print(message, soft_wrap=True, markup=False)


def print_json(
    value,  # What json.dumps accepts
    ensure_ascii: bool = True,  # Escape characters outside of ASCII
):
    "Print a result as JSON."
    print(json.dumps(value, indent=1, ensure_ascii=ensure_ascii))


def status(
    message: str,  # What takes long
):
    "Return a context that shows the message with a spinner on a terminal, and nothing elsewhere."
    return err.status(message) if err.is_terminal else nullcontext()
