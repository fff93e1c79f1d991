"""Restore the state that kdfast.training.snapshot saved, in the objects it belongs to.

`StateRestorer` visits objects that the same program created anew, in the same order, and fills them in place. It
creates numbers, tensors and plain containers only: a file cannot choose a class or a function.
"""

from types import FunctionType

from kdfast.training.kinds import attributes, code_text, contents_of_code, slots_of
from kdfast.training.restore_containers import ContainerRestorer, mismatch
from kdfast.training.restore_values import NOTHING
from kdfast.training.value_types import PLAIN


class StateRestorer(ContainerRestorer):
    """Restore states; call it with a state and the object in its place.

    Returns the value that belongs there, mostly the same object, filled.

    Raises KdfastError if an object is not the one whose state was saved.
    """

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

    def restore_named(
        self,
        states,  # [name, state] of each value
        values,  # Values of this process, by name
        where,  # Path of attributes to their owner
    ):
        "Return the restored values by name; `values` are those of this process."
        return {name: self(state, values.get(name, NOTHING), f'{where}.{name}') for name, state in states}

    def restore_object(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Fill the attributes of an object."
        self.claim(state, old, where)
        self.set_attributes(state, old, where)
        return old

    def set_attributes(
        self,
        state,  # Of the object
        x,  # The object to fill
        where,  # Path of attributes to it
    ):
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

    def restore_stateful(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Pass its state dict to an object."
        self.claim(state, old, where).load_state_dict(self(state['state'], NOTHING, where))
        return old

    def restore_own(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Restore a callback of kdfast: functions, loss module and state dict."
        self.claim(state, old, where)
        self.restore_named(state['attributes'], vars(old), where)
        self(state['trained'], getattr(old, 'loss_module', None), where)
        own = self(state['state'], NOTHING, where)
        if own is not None:
            old.load_state_dict(own)
        return old

    def restore_module(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Fill parameters, buffers, children and attributes of a module."
        self.claim(state, old, where)
        for part, states in zip(('_parameters', '_buffers', '_modules'), state['parts'], strict=True):
            current = vars(old)[part]
            if [name for name, _ in states] != list(current):
                raise mismatch(where, f'{state["type"]} of {", ".join(name for name, _ in states)}', old)
            for name, value in states:
                current[name] = self.restore_member(value, current[name], f'{where}.{name}')
        self.set_attributes(state, old, where)
        return old

    def restore_member(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Return a parameter, buffer or child of a module; tensors are filled in place."
        if isinstance(state, dict) and state['kind'] == 'tensor':
            return self.register(state, self.restore_tensor(state, old, where, in_place=True))
        return self(state, old, where)

    def restore_code(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Return the function, class or constant of this process, with its restored values."
        if old is NOTHING or code_text(old) != state['text']:
            raise mismatch(where, state['text'], old)
        self.register(state, old)
        values = self.restore_named(state['held'], contents_of_code(old), where)
        if isinstance(old, FunctionType):
            for name, cell in zip(old.__code__.co_freevars, old.__closure__ or ()):
                if name in values:
                    cell.cell_contents = values[name]
        return old

    def restore_file(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Cut or extend a file to its saved content."
        content = self.tensors[state['data']].numpy().tobytes()[: state['size']]
        old.flush()
        old.seek(0)
        old.truncate()
        raw = getattr(old, 'buffer', old)
        raw.write(content)
        old.flush()
        return old

    def restore_inert(
        self,
        state,  # Of the saved value
        old,  # Value in its place, or NOTHING
        where,  # Path of attributes to it
    ):
        "Return an object without state."
        return old
