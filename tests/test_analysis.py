import pytest
from conftest import make
from kdfast import analysis
from kdfast.runs import find_all
from kdfast.writing import write_csv


@pytest.mark.parametrize('curve,epoch', [([.1, .5, .8, .795, .80], 3), ([.8, .8], 1), ([.1, .8, .7, .8], 4), ([.5], 1), ([.79, .80, .785], 3), ([.80, .785], 2)])
def test_convergence_by_hand(curve, epoch): assert analysis.converged(curve) == epoch


def run(runs, recipe, curve, seed=0, train=.9, **result):
    folder = make(runs, recipe, seed, train_accuracy=train, valid_accuracy=curve[-1], best_valid_accuracy=max(curve), **result)
    write_csv(folder/'metrics.csv', ['epoch', 'valid_accuracy'], enumerate(curve, 1))


def test_traits_and_sentences_follow_from_the_numbers(tmp_path):
    run(tmp_path, 'teacher', [.5, .86, .88, .87], train=.95, hard_loss=.2)
    run(tmp_path, 'baseline', [.5, .6, .70, .80], train=.85, hard_loss=.4), run(tmp_path, 'baseline', [.5, .6, .79, .82], seed=1, train=.86, hard_loss=.5)
    make(tmp_path, 'hint', 0, fit_loss=.1), make(tmp_path, 'kd', 0, status='diverged')
    found = analysis.facts(find_all(tmp_path))
    base = found['recipes']['baseline']
    assert base['n'] == 2 and base['valid_accuracy'] == pytest.approx(.81) and base['gap'] == pytest.approx((.05 + .04)/2)
    assert base['converged'] == 4 and found['recipes']['teacher']['converged'] == 2
    assert base['wobble'] == pytest.approx((.1290994 + .1532699)/2, rel=1e-4) and set(found['recipes']) == {'teacher', 'baseline'}
    [comparison] = found['comparisons']
    said = ' '.join(comparison['sentences'])
    for sentence in ('teacher 87.0 %, baseline 81.0 %; teacher is 6.0 points ahead of baseline.', 'teacher 8.0 points, baseline 4.5 points; teacher over-fits most, baseline least',
                     'teacher epoch 2 of 4, baseline epoch 4 of 4', 'Hard loss: teacher 0.200, baseline 0.450.'): assert sentence in said, said
