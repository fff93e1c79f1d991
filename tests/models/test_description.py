"Descriptions of networks come from files, which anyone can write: each is usable, or refused in one sentence."

import json
from math import inf, nan

import numpy as np
import pytest
from PIL import Image

from kdfast.core.errors import KdfastError
from kdfast.export.predict import from_network, predict
from kdfast.models.description import FIELDS, REQUIRED, parse_description
from kdfast.models.study_networks import thin

CLASSES = ['ape', 'bee', 'cat']
VALID = dict(
    network='thin',
    classes=CLASSES,
    mean=[0.5, 0.4, 0.3],
    std=[0.2, 0.2, 1],
    size=[16, 16],
    presized=18,
    labels='several',
    range=[0.0, 4095.0],
    source={'nets.py': 'a' * 64},
    extra={},
    versions={'a': {'version': 2}},
)
NUMBERS = [0, -1, 1, 3, 0.5, 8, 18, 2**16, 1e31, 1e-40, 10**400, nan, inf, -inf, True]
PLAIN = [None, '', 'ab', '0.5', 'abc', 'several', *NUMBERS]
LISTS = [[], *([value] * n for value in PLAIN for n in (1, 2, 3, 4)), [0.5, 0.5, nan], [1, 0], [16, 17], CLASSES[::-1]]
JUNK = [*PLAIN, *LISTS, {}, {'a': 'b'}, {'a': 1}, {'a': {}}, {'a': []}, [['a', 'b']], [{}], ['a', 'a', 'b']]


def parsed(description):
    return parse_description(json.dumps(description), 'x.onnx')


@pytest.mark.parametrize('name', VALID)
def test_a_description_with_any_value_is_refused_or_usable(tmp_path, name):
    Image.fromarray(np.arange(32 * 20 * 3, dtype=np.uint8).reshape(32, 20, 3)).save(tmp_path / 'a.png')
    refused = 0
    for value in JUNK:
        try:
            found = parsed(VALID | {name: value})
        except KdfastError as e:
            assert 'x.onnx does not describe its network' in e.message
            refused += 1
            continue
        network = thin(len(found['classes'])).eval()
        network.build_info = found
        if max(found['size']) <= 64:
            (answer,) = predict(from_network(network), found, [tmp_path / 'a.png'])
            assert sorted(answer['classes']) == sorted(found['classes']) and np.isfinite(answer['probabilities']).all()
        assert isinstance(found['network'], str) and all(isinstance(text, str) for text in found['source'].values())
    assert refused > len(JUNK) / 2


@pytest.mark.parametrize(
    'change',
    [
        dict(mean=[0.5, 0.5], std=[0.5] * 4),
        dict(mean=['0.5'] * 3),
        dict(std=[0.2, 0.0, 0.2]),
        dict(std=[0.2, nan, 0.2]),
        dict(classes=[]),
        dict(classes='ab'),
        dict(classes=['a', 'a']),
        dict(size=[True, True]),
        dict(presized=15),
        dict(presized=33),
        dict(size=[16, 8]),
        dict(range=[1.0, 0.0]),
        dict(source=[['a', 'b']]),
        dict(network=None),
    ],
)
def test_values_that_would_be_wrong_or_end_as_an_error_of_kdfast(change):
    with pytest.raises(KdfastError, match='does not describe its network'):
        parsed(VALID | change)


def test_what_is_needed_is_there_and_the_rest_may_be_missing():
    assert parsed(VALID) == VALID and VALID.keys() == FIELDS.keys()
    needed = {name: VALID[name] for name in REQUIRED}
    assert parsed(needed) == needed
    for name in REQUIRED:
        with pytest.raises(KdfastError):
            parsed({other: value for other, value in needed.items() if other != name})


@pytest.mark.parametrize('text', ['', '[]', '3', 'null', '"size"', '{', '[' * 100_000, '{"size": NaN}'])
def test_text_that_is_no_description(text):
    with pytest.raises(KdfastError, match='does not describe its network'):
        parse_description(text, 'x.onnx')
