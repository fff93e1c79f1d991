"Numbers as text."

import pytest

from kdfast.core.format import duration, short_names, size_text, thousands


@pytest.mark.parametrize(
    'count, text',
    [(None, '–'), (0, '0'), (84, '84'), (306_000, '306 k'), (1_330_000, '1.33 M'), (2_100_000_000, '2.10 G')],
)
def test_large_counts_have_a_prefix(count, text):
    assert thousands(count) == text


@pytest.mark.parametrize(
    'seconds, text',
    [(0, '0 s'), (99, '99 s'), (100, '1.7 min'), (5999, '100.0 min'), (6000, '1.7 h'), (2 * 86400, '48.0 h')],
)
def test_long_times_have_a_unit_of_their_size(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    'n_bytes, digits, text', [(0, 1, '0.0 MB'), (1_234_567, 2, '1.23 MB'), (10**9, 1, '1.0 GB'), (2**30, 2, '1.07 GB')]
)
def test_units_of_sizes_are_decimal(n_bytes, digits, text):
    assert size_text(n_bytes, digits) == text


def test_short_names_leave_out_what_the_runs_of_a_recipe_share():
    names = ['kd', 'at,T=4,epochs=1', 'at,T=2,epochs=1', 'at,T=2,epochs=1,wd=0.1', 'baseline,epochs=1']
    assert list(short_names(names).values()) == ['kd', 'at,T=4', 'at,T=2', 'at,T=2,wd=0.1', 'baseline']
    assert list(short_names(names[:1] * 2)) == names[:1]
