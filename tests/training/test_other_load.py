import pytest
from learners import KINDS, learner

from kdfast.training.other_load import SHORTEST, TOLERATED, OtherLoad, waited_for_cores

KIND = next(iter(KINDS))


def fit(share, seconds=3 * SHORTEST):
    "What a fit tells whose threads wait that share of the time"
    told, now = [], [0.0]

    def clock():
        now[0] += seconds / 1000
        return now[0]

    learn = learner(KIND)
    learn.fit(2, cbs=OtherLoad(told.append, lambda: share * now[0], clock))
    return told, now[0]


@pytest.mark.parametrize('share,told', [(0.0, 0), (TOLERATED - 0.02, 0), (TOLERATED + 0.1, 1), (1.9, 1)])
def test_it_is_told_once_where_threads_wait(share, told):
    said, passed = fit(share, 1e6)
    assert passed > 4 * SHORTEST and len(said) == told


def test_a_short_fit_is_not_judged():
    said, passed = fit(1.0, 10.0)
    assert passed < SHORTEST and not said


def test_where_nothing_tells_nothing_is_told():
    told = []
    learner(KIND).fit(1, cbs=OtherLoad(told.append, lambda: None, iter(range(0, 10**6, 50)).__next__))
    assert not told


@pytest.mark.parametrize('readable', [1, 2, 3])
def test_what_becomes_unreadable_tells_nothing_more(readable):
    told, waits = [], iter([0.0] * readable + [None] * 1000)
    learner(KIND).fit(2, cbs=OtherLoad(told.append, waits.__next__, iter(range(0, 10**6, 50)).__next__))
    assert not told and next(waits) is None


def test_the_wait_of_this_process_only_grows():
    first, second = waited_for_cores(), waited_for_cores()
    assert first is None or 0 <= first <= second
