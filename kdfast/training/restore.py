"""Restore the state that kdfast.training.snapshot saved, in the objects it belongs to.

`StateRestorer` visits objects that the same program created anew, in the same order, and fills them in place. It
creates numbers, tensors and plain containers only: a file cannot choose a class or a function.
"""

from types import FunctionType

from kdfast.core.errors import KdfastError
from kdfast.training.kinds import attributes, code_text, contents_of_code, kind_of, slots_of, type_text
from kdfast.training.restore_values import NOTHING, ValueRestorer
from kdfast.training.snapshot import item_name
from kdfast.training.value_types import CONTAINERS, PLAIN


class StateRestorer(ValueRestorer):
    """Restore states; call it with a state and the object in its place.

    Returns the value that belongs there, mostly the same object, filled.

    Raises KdfastError if an object is not the one whose state was saved.
    """

    def __init__(
        self,
        tensors: dict,  # Of StateSaver
        series=None,  # Series of StateSaver
    ):
        super().__init__(tensors)
        self.series = series
        self.filled = {}  # objects that were filled, by id

    def __call__(
        self,
        state,  # JSON
        old,  # Object in its place, or NOTHING
        where: str = '',  # Path of attributes to it
    ):
        "Return the restored value."
        if type(state) in PLAIN:
            return state
        if state['kind'] == 'ref':
            return self.created[state['n']]
        return self.register(state, getattr(self, f"restore_{state['kind']}")(state, old, where))

    def register(self, state, x):
        "Remember a restored object, for references to it."
        self.created[state['n']] = x
        return x

    def claim(self, state, old, where):
        "Register an existing object to fill. Raises KdfastError for another type or a second claim."
        if type_text(old) != state['type'] or id(old) in self.filled:
            raise mismatch(where, state['type'], old)
        self.filled[id(old)] = old
        return self.register(state, old)

    # Containers

    def restore_container(self, state, old, where):
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

    def restore_items(self, state, x, old, where):
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

    def restore_pairs(self, state, x, before, where):
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

    # Objects

    def restore_named(self, states, values, where):
        "Return the restored values by name; `values` are those of this process."
        return {name: self(state, values.get(name, NOTHING), f'{where}.{name}') for name, state in states}

    def restore_object(self, state, old, where):
        self.claim(state, old, where)
        self.set_attributes(state, old, where)
        return old

    def set_attributes(self, state, x, where):
        "Set the attributes of an object; delete those that the checkpoint does not have."
        current = attributes(x)
        for name in current.keys() - {name for name, _ in state['attributes']}:
            delattr(x, name)
        for name, value in self.restore_named(state['attributes'], current, where).items():
            if value is NOTHING:
                continue  # has no state
            if name in slots_of(x):
                object.__setattr__(x, name, value)
            else:
                vars(x)[name] = value

    def restore_stateful(self, state, old, where):
        self.claim(state, old, where).load_state_dict(self(state['state'], NOTHING, where))
        return old

    def restore_own(self, state, old, where):
        self.claim(state, old, where)
        self.restore_named(state['attributes'], vars(old), where)
        self(state['trained'], getattr(old, 'loss_module', None), where)
        own = self(state['state'], NOTHING, where)
        if own is not None:
            old.load_state_dict(own)
        return old

    def restore_module(self, state, old, where):
        self.claim(state, old, where)
        for part, states in zip(('_parameters', '_buffers', '_modules'), state['parts'], strict=True):
            current = vars(old)[part]
            if [name for name, _ in states] != list(current):
                raise mismatch(where, f'{state["type"]} of {", ".join(name for name, _ in states)}', old)
            for name, value in states:
                current[name] = self.restore_member(value, current[name], f'{where}.{name}')
        self.set_attributes(state, old, where)
        return old

    def restore_member(self, state, old, where):
        "Return a parameter, buffer or child of a module; tensors are filled in place."
        if isinstance(state, dict) and state['kind'] == 'tensor':
            return self.register(state, self.restore_tensor(state, old, where, in_place=True))
        return self(state, old, where)

    def restore_code(self, state, old, where):
        if old is NOTHING or code_text(old) != state['text']:
            raise mismatch(where, state['text'], old)
        self.register(state, old)
        values = self.restore_named(state['held'], contents_of_code(old), where)
        if isinstance(old, FunctionType):
            for name, cell in zip(old.__code__.co_freevars, old.__closure__ or ()):
                if name in values:
                    cell.cell_contents = values[name]
        return old

    def restore_file(self, state, old, where):
        "Cut or extend a file to its saved content."
        content = self.tensors[state['data']].numpy().tobytes()[: state['size']]
        old.flush()
        old.seek(0)
        old.truncate()
        raw = getattr(old, 'buffer', old)
        raw.write(content)
        old.flush()
        return old

    def restore_inert(self, state, old, where):
        return old


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
