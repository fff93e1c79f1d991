"A measure is one entry of a list: the tables, the CSV and the page show it."

import csv
import io

import pytest
from conftest import make

from kdfast.analysis.aggregate import aggregate
from kdfast.analysis.measures import MEASURES, SCORES, Measure
from kdfast.core.format import percent
from kdfast.report.page import measure_table
from kdfast.runs.find import find_runs


@pytest.fixture
def gap():
    measure = Measure('gap', 'gap', percent, compute=lambda result: result['train_accuracy'] - result['valid_accuracy'])
    MEASURES.append(measure)
    yield measure
    MEASURES.remove(measure)


def test_a_new_measure_is_in_every_table(tmp_path, kdfast, gap):
    make(tmp_path, 'kd', 0, train_accuracy=0.9, valid_accuracy=0.8)
    assert 'gap                  10.00 %' in kdfast('compare', '--runs', tmp_path).out
    [row] = csv.DictReader(io.StringIO(kdfast('compare', '--csv', '--runs', tmp_path).out))
    assert float(row['gap']) == pytest.approx(0.1) and row['gap_sd'] == ''
    table = measure_table(aggregate(find_runs(tmp_path)), SCORES)
    assert ('gap', ('10.00 %', '')) in table['lines'][0][1]


def test_names_are_unique_and_labels_fit():
    assert len({m.name for m in MEASURES}) == len({m.label for m in MEASURES}) == len(MEASURES)
    assert all(len(m.label) <= 20 for m in MEASURES)
