"Which runs a run depends on, by its calls of `run.needs` and `run.frozen`: one rule for plans and for training."

import ast
from collections.abc import Callable
from pathlib import Path

from kdfast.core.errors import KdfastError
from kdfast.core.names import is_run, parse
from kdfast.runs.options import OF_ONE_RUN


def asked_by_needs(
    name: str,  # Of a recipe
    **given,  # Its arguments that differ from its defaults
) -> tuple[str, dict]:  # The same
    "Return what `run.needs` asks for."
    return name, given


def asked_by_frozen(
    name: str,  # Network with weights, a run directory, or a network to train on labels first
    optimizer: str = 'sgd',  # Optimizer of that training
) -> tuple[str, dict] | None:  # Recipe and its arguments; None for a network with weights of its own
    "Return what `run.frozen` asks for."
    return ('teacher', dict(network=name, optimizer=optimizer)) if is_run(name) or not parse(name).weights else None


ASKED: dict[str, Callable] = dict(needs=asked_by_needs, frozen=asked_by_frozen)  # by method of Run


def needed_run(
    given: dict,  # Arguments of the recipe that a run needs
    settings: dict,  # Of the run that needs it, which are not defaults
) -> dict | None:  # None if the arguments name a run directory, which is used as it is
    "Return all arguments and settings, other than defaults, of the run that a run needs."
    if is_run(given.get('network') or ''):
        return None
    if given.get('epochs') == 0:  # nothing is trained, so that no other argument matters
        return {name: given[name] for name in ('network', 'epochs') if name in given}
    return {name: value for name, value in settings.items() if name not in OF_ONE_RUN} | given


def find_calls(
    main: ast.FunctionDef,  # Function of a recipe; its first parameter is the run
) -> list[ast.Call]:
    "Return the calls of the run's methods that ask for other runs."
    run = [parameter.arg for parameter in (*main.args.posonlyargs, *main.args.args)][:1]
    calls = [node for node in ast.walk(main) if isinstance(node, ast.Call)]
    return [call for call in calls if method_of(call, run) in ASKED]


def method_of(
    call: ast.Call,  # In a main
    run: list[str],  # The name of its first parameter, if it has one
) -> str | None:  # None for a call of anything else
    "Return the name of the run's method that is called."
    match call.func:
        case ast.Attribute(value=ast.Name(id=name), attr=method) if name in run:
            return method
    return None


def asked_by_call(
    call: ast.Call,  # From `find_calls`
    arguments: dict,  # All arguments of the run
    file: Path,  # Of the recipe, for the error
) -> tuple[str, dict] | None:  # Recipe and its arguments; None if the call asks for no run
    "Return what a call asks for. Raises KdfastError if only execution tells."

    def plain(node):
        return arguments[node.id] if isinstance(node, ast.Name) and node.id in arguments else ast.literal_eval(node)

    method = ast.unparse(call.func).rpartition('.')[2]
    try:
        return ASKED[method](*map(plain, call.args), **{keyword.arg: plain(keyword.value) for keyword in call.keywords})
    except (ValueError, TypeError) as e:
        raise KdfastError(
            f'{file}, line {call.lineno}: arguments of run.{method} must be plain text, numbers, or parameters of main'
        ) from e
