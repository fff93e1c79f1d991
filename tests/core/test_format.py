"Numbers as text."

import pytest

from kdfast.core.format import thousands


@pytest.mark.parametrize(
    'count, text',
    [(None, '–'), (0, '0'), (84, '84'), (306_000, '306 k'), (1_330_000, '1.33 M'), (2_100_000_000, '2.10 G')],
)
def test_large_counts_have_a_prefix(count, text):
    assert thousands(count) == text
