"Describe the command line in Markdown, a page per command, from the Typer app itself."

import re

from typer.main import get_command

ENDING = re.compile(r'(?P<help>.*?)\s*\[(?P<notes>(default: |required|x[<>]|\d+<).*)\]$', re.S)


def command_pages(
    app,  # The Typer app
    name: str = 'kdfast',  # As users type it
) -> dict[str, str]:
    "Return the text of each page by its name: `commands` for the overview, `commands.study` and so on."
    root = get_command(app)
    context = type(root.make_context(name, [], resilient_parsing=True))
    top = context(root, info_name=name)
    children = subcommands(root, top)
    pages = {'commands': overview(root, top, children)}
    seen = {}
    for child, ctx in children:
        pages[f'commands.{child.name}'] = page(child, ctx, seen)
    return pages


def subcommands(group, ctx):
    "Return the visible commands of a group, each with the context that it runs in"
    found = [(name, group.get_command(ctx, name)) for name in group.list_commands(ctx)]
    visible = [(name, command) for name, command in found if not command.hidden]
    return [(command, type(ctx)(command, info_name=name, parent=ctx)) for name, command in visible]


def overview(root, top, children):
    rows = [(f'[`{ctx.command_path}`](commands/{child.name}.html)', first_line(child)) for child, ctx in children]
    return '\n\n'.join(
        (
            '# Commands',
            root.help or '',
            usage(root, top),
            table(('command', 'purpose'), rows),
            parameters(root, top),
            'Results go to stdout, progress and errors to stderr. Exit status: 0 done, 2 an error that you can fix, '
            '3 another process trains this run, 4 training diverged, 130 or 143 interrupted, 1 a defect of kdfast.',
        )
    )


def page(command, ctx, seen):
    "Describe one command. A group whose subcommands have been described refers to them; `seen` holds these."
    parts = [f'# {ctx.command_path}', command.help or '', usage(command, ctx), parameters(command, ctx)]
    if not hasattr(command, 'list_commands'):
        return '\n\n'.join(part for part in parts if part)
    children = subcommands(command, ctx)
    records = {child.name: dict(records_of(child, child_ctx)) for child, child_ctx in children}
    described = next((name for name, other in seen.items() if records and other == records), None)
    if described:
        parts.append(f'Recipes and options are those of [`{described}`]({described.split()[-1]}.html).')
        return '\n\n'.join(part for part in parts if part)
    seen[ctx.command_path] = records
    shared = {name for name in records_in_all(records.values())}
    if shared:
        parts.append('## Common options')
        parts.append(parameters(*children[0], lambda record: record in shared))
    for child, child_ctx in children:
        parts.append(f'## {child_ctx.command_path}')
        parts += [child.help or '', parameters(child, child_ctx, lambda record: record not in shared)]
    return '\n\n'.join(part for part in parts if part)


def records_in_all(tables):
    "Return what each of several commands has in the same words; nothing for fewer than two commands"
    sets = [set(table.items()) for table in tables]
    return set.intersection(*sets) if len(sets) > 1 else set()


def records_of(command, ctx):
    "Return usage and help of each parameter, as --help shows them"
    return [record for parameter in command.get_params(ctx) if (record := parameter.get_help_record(ctx))]


def usage(command, ctx):
    return f'```text\n{" ".join((ctx.command_path, *command.collect_usage_pieces(ctx)))}\n```'


def parameters(command, ctx, chosen=lambda record: True):
    "Return a table of arguments and options, without --help, which every command has"
    records = [r for r in records_of(command, ctx) if chosen(r) and not r[0].split()[0] == '--help']
    rows = [(f'`{names}`', *split_help(text)) for names, text in records]
    return table(('argument or option', 'default, range', 'meaning'), rows) if rows else ''


def split_help(text):
    "Return default and limits, which --help has in brackets, and the help itself"
    found = ENDING.match(text)
    if not found:
        return '', text
    return found['notes'].replace('default: ', '').replace('; ', ', '), found['help']


def first_line(command):
    return (command.help or '').partition('\n')[0]


def table(heading, rows):
    "Return a table in Markdown"
    lines = [heading, ['---'] * len(heading), *([cell_text(cell) for cell in row] for row in rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def cell_text(text):
    return ' '.join(text.split()).replace('|', r'\|')
