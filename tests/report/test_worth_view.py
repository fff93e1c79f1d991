"The sentences of `kdfast worth` and `kdfast plan`, word by word; both screens fit 80 columns."

from io import StringIO

import pytest
from rich.console import Console

from kdfast.report.plan import margin_text, plan_view, round_up
from kdfast.report.worth import sentences, worth_view

COMMAND = 'kdfast run kd --seed 2 --data photos --threads 1'


def row(name, verdict, low, high, **more):
    middle = dict(difference=(low + high) / 2, low=low, high=high, n=5, confidence=0.99, differ_in='')
    return dict(name=name, verdict=verdict, seconds=dict(teacher=61.0, kd=57.0), next_look=8) | middle | more


def found(answer, *rows, **more):
    best = dict(name='kd', seed=2, value=0.864, command=COMMAND)
    known = dict(subject='thin on photos', margin=0.008, metric='accuracy', looks=(3, 5, 8), n=5, baseline=38.0)
    return dict(answer=answer, recipes=list(rows), best=best, next=None, needed=None) | known | more


BETTER = row('kd', 'better', 0.009, 0.031)
ALIKE = row('exp2', 'alike', -0.002, 0.005)
OPEN = row('exp2', 'undecided', -0.004, 0.019)
BEST = (
    'the best model, kd with seed 2 (86.40 % on the validation images that it is chosen by), is reproduced by: '
    + COMMAND
)


def test_yes_has_the_interval_the_cost_and_the_command():
    first, second = sentences(found('yes', BETTER, OPEN))
    assert first == (
        'Yes: kd raises the accuracy of thin on photos by 0.90 to 3.10 points over training on labels alone (5 seeds).'
    )
    assert second == (
        'Its training takes 3.1 times the time of the baseline (2.0 min a seed: teacher 61 s, kd 57 s; baseline 38 s); '
        + BEST
    )


@pytest.mark.parametrize('metric,named', [('accuracy', '86.40 %'), ('balanced', 'balanced accuracy 86.40 %')])
def test_the_value_of_the_best_model_is_that_of_the_metric(metric, named):
    assert f'with seed 2 ({named} on the validation' in sentences(found('yes', BETTER, metric=metric))[1]


@pytest.mark.parametrize('n', [0, 5])
def test_runs_without_a_result_are_listed(n):
    text = StringIO()
    facts = found('undecided', OPEN, n=n, next=dict(seeds=8, seconds=9), left_out=['exp2, seed 3: diverged'])
    Console(file=text, width=80).print(worth_view(facts | dict(sentences=sentences(facts))))
    assert 'exp2, seed 3: diverged' in text.getvalue()


def test_no_has_all_intervals():
    first, second = sentences(found('no', ALIKE, row('kd', 'worse', -0.03, -0.01, seconds=dict(kd=38.0))))
    assert first == (
        'No: no recipe raises the accuracy of thin on photos by 0.8 points: against training on labels alone, exp2 '
        'changes it by −0.20 to +0.50 points, kd changes it by −3.00 to −1.00 points (5 seeds).'
    )
    assert second == f'Distillation takes 1.0 to 3.1 times the time of the baseline; {BEST}'


@pytest.mark.parametrize(
    'more,expected',
    [
        (
            dict(next=dict(seeds=8, seconds=600)),
            'The next look is at 8 seeds, about 10.0 min of training from now: repeat the command; the best model so '
            'far, kd with',
        ),
        (
            dict(needed=dict(images=4100, margin=0.0151)),
            'That was the last look; to be decided, such a study needs about 4,100 validation images or a margin of '
            '1.6 points, and a --runs directory of its own; the best model,',
        ),
        (dict(needed=dict(images=None, margin=None)), 'That was the last look; to be decided, no number of images'),
    ],
)
def test_undecided_says_what_is_known_and_what_is_missing(more, expected):
    first, second = sentences(found('undecided', OPEN, **more))
    assert first == (
        'Not decided: whether a recipe changes the accuracy of thin on photos by 0.8 points is open after 5 seeds: '
        'against training on labels alone, exp2 changes it by −0.40 to +1.90 points.'
    )
    assert second.startswith(expected)


def test_before_the_first_look_nothing_is_said_about_the_effect():
    first, second = sentences(found('undecided', n=0, best=None))
    assert first == 'Not decided: no verdict before 3 seeds are finished, the first look of the design.'
    assert second == 'Repeat the command: it resumes the runs.'


def printed(view):
    out = Console(width=80, file=StringIO())
    out.print(view)
    return out.file.getvalue()


def test_the_screen_begins_with_the_answer_and_fits_80_columns():
    answer = found('yes', BETTER, row('exp2', 'undecided', -0.11, 0.219, seconds=dict(exp2=5999.0)))
    text = printed(worth_view(answer | dict(sentences=sentences(answer))))
    lines = text.splitlines()
    assert lines[1].startswith('Yes: kd raises') and len(lines) <= 24 and max(map(len, lines)) <= 80
    assert '+2.00' in text and '−11.00 … +21.90' in text and '2.0 min (3.1×)' in text and '100.0 min' in text
    assert '99.00 %' in text and 'too high on' in text


def plan(*spreads, **more):
    costs = {'baseline,epochs=2': dict(seconds=60.0), 'teacher': dict(seconds=9000.0)}
    known = dict(data='photos', images=400, recipes=['baseline', 'kd'], margin=0.008, looks=(3, 5), declared='')
    return dict(spreads=spreads, costs=costs, jobs=2, seconds=7000.0, bytes=3e9, free=1e9) | known | more


def spread(error, source, look, remedies=None):
    outlooks = [dict(true=0.0, seeds=3.4, look=look, decided=0.6, seconds=600.0)] * 2
    return dict(sd=0.0123, error=error, source=source, outlooks=outlooks, remedies=remedies)


def test_a_plan_fits_80_columns_and_says_where_its_spread_is_from():
    text = printed(plan_view(plan(spread(None, 'paired differences of 6 runs', 5), declared='2026-11-26')))
    assert max(map(len, text.splitlines())) <= 80 and text.lstrip().startswith(
        'baseline, kd on photos: looks at 3 and 5'
    )
    for part in ('1.23', '5 seeds', '3.4', '10.0 min', 'declared on 2026-11-26', 'baseline 60 s, teacher 2.5 h'):
        assert part in text
    words = ' '.join(text.split())
    assert '1.9 h left, 2 runs at a time; 3.0 GB on the disk (1.0 GB free)' in words
    assert '400 validation images, from paired differences of 6 runs' in words


def test_a_plan_that_cannot_decide_says_what_could():
    text = printed(plan_view(plan(spread(0.2, '--error', None, dict(images=4100, margin=0.01504)))))
    assert (
        'not by 5 (60%)' in text
        and '5 seeds are too few; enough: about 4,100 validation images or --margin 1.6' in text
    )


def test_a_plan_without_an_error_has_several():
    text = printed(plan_view(plan(*(spread(error, 'assumed', 5) for error in (0.05, 0.2)))))
    assert ' 5 %' in text and '20 %' in text and 'No error is known yet: give --error' in text


def test_suggested_numbers_are_rounded_up():
    assert [round_up(x) for x in (1.501, 0.8, 12.1, 120)] == [1.6, 0.8, 13, 120] and margin_text(0.008) == '0.8'
