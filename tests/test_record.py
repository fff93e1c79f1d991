"Every component of the loss: by step and by epoch, on training and validation images."
import csv
import json

import pytest

TOTAL = {'teacher': 'hard', 'baseline': 'hard', 'kd': None, 'hint': 'fit', 'exp1': None, 'exp2': None}


def table(file):
    return [{name: float(value) if value else None for name,value in row.items()} for row in csv.DictReader(file.open())]


@pytest.mark.parametrize('recipe', TOTAL)
def test_components_add_up(study, recipe):
    alpha = json.loads((study/recipe/'0'/'result.json').read_text())['arguments'].get('alpha')
    rows,steps = table(study/recipe/'0'/'metrics.csv'),table(study/recipe/'0'/'steps.csv')
    for row in [*rows, *steps]:
        for split in ('train_', 'valid_') if 'train_total' in row else ('',):
            total = row[f'{split}total']
            if TOTAL[recipe]: assert total == row[split + TOTAL[recipe]]
            else: assert total == pytest.approx((1 - alpha)*row[f'{split}hard'] + alpha*row[f'{split}soft'], rel=1e-4)
            assert (row[f'{split}accuracy'] is None) == (recipe == 'hint')


@pytest.mark.parametrize('recipe', ['kd', 'hint'])
def test_an_epoch_is_the_mean_of_its_steps(study, recipe):
    rows,steps = table(study/recipe/'0'/'metrics.csv'),table(study/recipe/'0'/'steps.csv')
    assert [row['epoch'] for row in rows] == list(range(1, len(rows) + 1)) and [s['step'] for s in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == 9*len(rows) # 72 images, 8 a batch
    for row in rows:
        mine = [s['total'] for s in steps if s['epoch'] == row['epoch']]
        assert row['train_total'] == pytest.approx(sum(mine)/len(mine), rel=1e-5)


def test_the_result_is_the_last_epochs(study):
    result,last = json.loads((study/'exp2'/'0'/'result.json').read_text()),table(study/'exp2'/'0'/'metrics.csv')[-1]
    assert result['train_loss'] == last['train_total'] and result['soft_loss'] == last['train_soft'] and result['hard_loss'] == last['train_hard']
    assert result['valid_loss'] == pytest.approx(last['valid_hard'], rel=1e-4)
    assert result['valid_accuracy'] == pytest.approx(last['valid_accuracy'], abs=1e-9)


def test_the_best_epoch_is_said_beside_the_last(study):
    result,rows = json.loads((study/'kd'/'0'/'result.json').read_text()),table(study/'kd'/'0'/'metrics.csv')
    assert result['best_valid_accuracy'] == max(row['valid_accuracy'] for row in rows) == rows[result['best_epoch'] - 1]['valid_accuracy']


def test_the_schedule_is_one_cycle(study):
    lr = [s['lr'] for s in table(study/'baseline'/'0'/'steps.csv')]
    top = lr.index(max(lr))
    assert lr[0] < lr[top] > lr[-1] and max(lr) == pytest.approx(.2, rel=.01) and .2 < top/len(lr) < .3
    assert lr[:top] == sorted(lr[:top]) and lr[top:] == sorted(lr[top:], reverse=True)


def test_a_diverged_run_is_no_result(kdfast, images, tmp_path):
    done = kdfast('run', 'baseline', '--lr', '1e20', '--data', images, '--runs', tmp_path)
    folder = tmp_path/'tiny'/'baseline,lr=1e+20'/'0'
    assert done.status == 4 and 'a lower --lr is the usual cure' in done.err
    state = json.loads((folder/'run.json').read_text())
    assert state['status'] == 'diverged' and 'loss became' in state['reason']
    assert not (folder/'result.json').exists() and not (folder/'weights.safetensors').exists()
    listed = kdfast('ls', '--runs', tmp_path)
    assert 'diverged' in listed.out
