"Imports search for no garbage, and what they create is never searched."

import gc

import pytest

from kdfast.core.imports import without_collection


@pytest.fixture(autouse=True)
def usual_collection():
    yield
    gc.unfreeze()
    gc.enable()


def test_imported_objects_are_not_searched_for_garbage():
    with without_collection():
        assert not gc.isenabled()
        imported = [[]]
    assert gc.isenabled()
    assert not any(found is imported for found in gc.get_objects())
    assert gc.get_freeze_count() > 0
    later = [[]]
    assert any(found is later for found in gc.get_objects())


@pytest.mark.parametrize('error', [None, ImportError])
def test_collection_stays_as_the_user_has_set_it(error):
    gc.disable()
    try:
        with without_collection():
            if error:
                raise error
    except ImportError:
        pass
    assert not gc.isenabled()
