"Weights of classes, from frequencies and from tables."

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from kdfast.core.errors import KdfastError
from kdfast.data.class_weights import class_weights


@pytest.fixture
def uneven(data):
    "Of the classes ape, bee and cat 24, 12 and 4 images"
    images, labels = data.train
    rows = np.concatenate([np.flatnonzero(labels == c)[:n] for c, n in enumerate((24, 12, 4))])
    return replace(data, train=(images[rows], labels[rows]))


def test_by_frequency_as_scikit_learn(uneven):
    found = class_weights('auto', uneven)
    assert found == pytest.approx(dict(ape=40 / (3 * 24), bee=40 / (3 * 12), cat=40 / (3 * 4)))
    labels = uneven.train[1]
    assert list(found.values()) == pytest.approx(compute_class_weight('balanced', classes=np.arange(3), y=labels))
    assert class_weights('none', uneven) == {}


TABLES = {
    'w.csv': 'class,weight\nbee,2\nape,1\ncat,4.5\n',
    'w.tsv': 'weight\tclass\n1\tape\n2\tbee\n4.5\tcat\n',
    'w.json': json.dumps(dict(cat=4.5, bee=2, ape=1)),
    'rows.json': json.dumps([{'class': c, 'weight': w} for c, w in dict(ape=1, bee=2, cat=4.5).items()]),
    'scaled.csv': 'class,weight\nape,10\nbee,20\ncat,45\n',
}


@pytest.mark.parametrize('name', TABLES)
def test_tables(uneven, tmp_path, name):
    "Their ratios count: 24·1 + 12·2 + 4·4.5 = 66 over 40 images have a mean of 1"
    (tmp_path / name).write_text(TABLES[name])
    found = class_weights(str(tmp_path / name), uneven)
    assert found == pytest.approx(dict(ape=40 / 66, bee=80 / 66, cat=180 / 66)) and list(found) == uneven.classes


@pytest.mark.parametrize(
    'text,said',
    [
        ('class,weight\nape,1\nbee,2\n', 'has no weight for cat: add a row'),
        ('class,weight\nape,1\nbee,2\ncat,1\ndog,1\n', 'has a weight for dog, not a class of the data set'),
        ('class,weight\nape,1\nape,2\n', 'line 3: a second weight of ape'),
        ('class,weight\nape,x\n', 'line 2: the weight of a class is x, expected a number above 0'),
        ('class,weight\nape,0\n', 'is 0, expected a number above 0'),
        ('class,weight\nape,inf\n', 'is inf, expected'),
        ('class,weight\nape\n', 'line 2: expected a class and a weight, found 1 cells'),
        ('ape,1\nbee,2\ncat,3\n', 'has the columns ape, 1: expected class and weight'),
        ('', 'expected class and weight'),
    ],
)
def test_tables_that_are_refused(data, tmp_path, text, said):
    (tmp_path / 'w.csv').write_text(text)
    with pytest.raises(KdfastError, match=said):
        class_weights(str(tmp_path / 'w.csv'), data)
