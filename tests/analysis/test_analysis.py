import pytest
from conftest import make

from kdfast.analysis.curves import comparisons, convergence_epoch, summarize_curves
from kdfast.core.atomic import write_csv
from kdfast.report.curves import curve_sentences
from kdfast.runs.find import find_runs


@pytest.mark.parametrize(
    'curve,epoch',
    [
        ([0.1, 0.5, 0.8, 0.795, 0.80], 3),
        ([0.8, 0.8], 1),
        ([0.1, 0.8, 0.7, 0.8], 4),
        ([0.5], 1),
        ([0.79, 0.80, 0.785], 3),
        ([0.80, 0.785], 2),
    ],
)
def test_convergence_by_hand(curve, epoch):
    assert convergence_epoch(curve) == epoch


def run(runs, recipe, curve, seed=0, train=0.9, **result):
    folder = make(
        runs, recipe, seed, train_accuracy=train, valid_accuracy=curve[-1], best_valid_accuracy=max(curve), **result
    )
    write_csv(folder / 'metrics.csv', ['epoch', 'valid_accuracy'], enumerate(curve, 1))


def test_summaries_and_sentences_follow_from_the_numbers(tmp_path):
    run(tmp_path, 'teacher', [0.5, 0.86, 0.88, 0.87], train=0.95, hard_loss=0.2)
    run(tmp_path, 'baseline', [0.5, 0.6, 0.70, 0.80], train=0.85, hard_loss=0.4)
    run(tmp_path, 'baseline', [0.5, 0.6, 0.79, 0.82], seed=1, train=0.86, hard_loss=0.5)
    make(tmp_path, 'hint', 0, fit_loss=0.1)
    make(tmp_path, 'kd', 0, status='diverged')
    folders = find_runs(tmp_path)
    means = summarize_curves(folders)
    base = means['baseline']
    assert (
        base['n'] == 2
        and base['valid_accuracy'] == pytest.approx(0.81)
        and base['generalization_gap'] == pytest.approx((0.05 + 0.04) / 2)
    )
    assert base['convergence_epoch'] == 4 and means['teacher']['convergence_epoch'] == 2
    assert base['last_epochs_sd'] == pytest.approx((0.1290994 + 0.1532699) / 2, rel=1e-4) and set(means) == {
        'teacher',
        'baseline',
    }
    [names] = comparisons(folders, means)
    said = ' '.join(curve_sentences(names, means))
    for sentence in (
        'teacher 87.0 %, baseline 81.0 %; teacher is 6.0 points ahead of baseline.',
        'teacher 8.0 points, baseline 4.5 points; most in teacher, least in baseline',
        'teacher epoch 2 of 4, baseline epoch 4 of 4',
        'Hard loss: teacher 0.200, baseline 0.450.',
    ):
        assert sentence in said, said
