"""Restore lists, tuples, sets and dictionaries; register what was restored, for references to it."""

from collections.abc import Mapping
from types import MappingProxyType

from kdfast.core.errors import KdfastError
from kdfast.training.kinds import code_text, kind_of, type_text
from kdfast.training.restore_values import NOTHING, ValueRestorer
from kdfast.training.snapshot import item_name
from kdfast.training.value_types import CONTAINERS, PLAIN


class ContainerRestorer(ValueRestorer):
    "Create or fill the containers of a checkpoint. Those of a subclass, as namedtuples, must exist."

    def __init__(
        self,
        tensors: dict,  # Of StateSaver
        series=None,  # Series of StateSaver
        moved: Mapping[str, str] = MappingProxyType({}),  # As of ValueRestorer
    ):
        super().__init__(tensors, moved)
        self.series = series
        self.filled = {}  # objects that were filled, by id

    def register(
        self,
        state,  # Of the object
        x,  # The restored object
    ):
        "Remember a restored object, for references to it."
        self.created[state['n']] = x
        return x

    def claim(
        self,
        state,  # Of the object
        old,  # Object in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Register an existing object to fill. Raises KdfastError for another type or a second claim."
        if type_text(old) != state['type'] or id(old) in self.filled:
            raise mismatch(where, state['type'], old)
        self.filled[id(old)] = old
        return self.register(state, old)

    def restore_container(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Return a list, tuple, set or dictionary; an existing one is filled in place."
        new_type = CONTAINERS.get(state['type'])  # None: a subclass, which must exist
        fillable = new_type is not None and type(old) is new_type and not issubclass(new_type, tuple | frozenset)
        if new_type is None or fillable and id(old) not in self.filled:
            x = self.claim(state | dict(type=type_text(old) if new_type else state['type']), old, where)
        else:
            x = self.register(state, new_type() if state.get('maxlen') is None else new_type(maxlen=state['maxlen']))
        if 'pairs' in state:
            return self.restore_pairs(state, x, dict(old) if isinstance(old, dict) else {}, where)
        items = self.restore_items(state, x, old, where)
        if new_type is None and isinstance(x, tuple):
            return type(x)(*items)  # a namedtuple
        if isinstance(x, tuple | frozenset):
            return type(x)(items)
        x.clear()
        x.update(items) if isinstance(x, set) else x.extend(items)
        return x

    def restore_items(
        self,
        state,  # Of the container
        x,  # The new container, not filled yet
        old,  # Container in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Return the items of a list, tuple or set."
        before = list(old) if isinstance(old, list | tuple | CONTAINERS['L']) else []
        if 'series' in state:
            return self.series.values(state['series'], x)
        if 'data' in state:
            return self.tensors[state['data']].tolist()
        return [
            self(item, before[i] if i < len(before) else NOTHING, f'{where}.{i}')
            for i, item in enumerate(state['items'])
        ]

    def restore_pairs(
        self,
        state,  # Of the dictionary
        x,  # The dictionary to fill
        before,  # Its items in this process
        where,  # Path of attributes to it
    ):
        "Fill a dictionary."
        constants = {code_text(key): key for key in before if type(key) not in PLAIN and kind_of(key) == 'code'}
        found = []
        for i, (key, value) in enumerate(state['pairs']):
            if isinstance(key, dict) and key['kind'] == 'code':
                key = self.register(key, constants[key['text']])
            else:
                key = self(key, NOTHING)
            found.append((key, self(value, before.get(key, NOTHING), f'{where}.{item_name(key, i)}')))
        x.clear()
        for key, value in found:
            x[key] = value
        return x


def mismatch(
    where: str,  # Path of attributes
    saved: str,  # Description of the saved object
    old,  # Object of this process, or NOTHING
) -> KdfastError:
    "Return the error for an object that is not the one whose state was saved."
    if old is NOTHING:
        found = 'nothing'
    else:
        found = code_text(old) if kind_of(old) == 'code' else type_text(old)
    return KdfastError(
        f'the checkpoint has the state of {saved} at {where}, and this run has {found}: '
        'the recipe creates different objects this time. Delete the run directory to start over'
    )
