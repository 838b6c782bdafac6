"The released forms reproduce what the authors' code was recorded to do."

from dataclasses import replace

import numpy as np
import pytest
import torch

from omnisapiens_nb.evaluation.metrics import mean_weighted_accuracy, sentiment_binary_f1, weighted_f1
from omnisapiens_nb.rl.harpo import ABLATIONS, Harpo, HarpoConfig
from omnisapiens_nb.rl.rewards import minilm, score

VARIANTS = list(ABLATIONS)


def largest(pairs):
    "The largest absolute difference over pairs of numbers or arrays."
    return max(float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max()) for a, b in pairs)


def steps(scenario):
    "What ours and the recorded code give for each step of a scenario."
    h = Harpo(replace(HarpoConfig.released(), **ABLATIONS[scenario['variant']]))
    for s in scenario['steps']:
        yield h(s['rewards'], s['prompt_ids'], s['tasks']), h, s


@pytest.mark.parametrize('variant', VARIANTS)
def test_harpo_released(golden, variant):
    scenarios = [s for s in golden('harpo_released_code')['scenarios'] if s['variant'] == variant]
    assert len(scenarios) == (6 if variant == 'harpo' else 3)
    for scenario in scenarios:
        for ours, h, theirs in steps(scenario):
            assert largest([(ours.advantages, theirs['advantages'])]) < 1e-9
            assert largest((ours.task_factor[t], theirs['state'][t]['task_factor']) for t in ours.task_factor) < 1e-9
            assert (
                largest((m.contribution.value, theirs['state'][t]['contribution_ema']) for t, m in h.memory.items())
                < 1e-9
            )
            assert ours.scale == 1.0


def test_harpo_released_in_fast_form(golden):
    "Integer ids give what names give."
    scenario = golden('harpo_released_code')['scenarios'][5]
    h = Harpo(HarpoConfig.released())
    for s in scenario['steps']:

        def number(ids):
            return torch.tensor([sorted(set(ids)).index(i) for i in ids])

        a = h(torch.tensor(s['rewards'], dtype=torch.float64), number(s['prompt_ids']), number(s['tasks'])).advantages
        assert largest([(a, s['advantages'])]) < 1e-9


def recorded_embedding(case):
    "Vectors of two texts whose cosine is the recorded one."
    c = case['cosine']

    def embed(texts):
        return np.array([[1.0, 0.0], [c, (1 - min(c, 1.0) ** 2) ** 0.5]])[: len(texts)]

    return embed


@pytest.mark.parametrize('recipe', ['harpo', 'grpo'])
@pytest.mark.parametrize('true_embedding', [False, True])
def test_rewards_released(golden, recipe, true_embedding):
    cases = golden('rewards_released_code')['cases']
    assert len(cases) == 20
    for case in cases:
        embed = minilm() if true_embedding else recorded_embedding(case)
        (r,) = score(
            [case['response']], [case['reference']], [case['task_id']], recipe=recipe, released=True, embed=embed
        )
        theirs = case[f'{recipe}_reward']
        ours = dict(
            score=r.total,
            standard_score=r.exact,
            format_score=r.format,
            similarity_score=r.similarity,
            overlong_score=r.overlong,
        )
        assert largest((ours[k], v) for k, v in theirs.items() if k in ours) < 1e-4, case


def test_rewards_in_one_call(golden):
    cases = golden('rewards_released_code')['cases']
    columns = [[c[k] for c in cases] for k in ('response', 'reference', 'task_id')]
    ours = score(*columns, released=True)
    assert largest((r.total, c['harpo_reward']['score']) for r, c in zip(ours, cases)) < 1e-4


@pytest.mark.parametrize(
    'where, key, metric',
    [
        ('metrics', 'weighted_f1', weighted_f1),
        (None, 'mean_weighted_accuracy', mean_weighted_accuracy),
        ('collapsed', 'F1w2', sentiment_binary_f1),
    ],
)
def test_metrics_released(golden, where, key, metric):
    cases = [c for c in golden('metrics_released_code')['cases'] if key in (c.get(where, {}) if where else c)]
    assert len(cases) == {'weighted_f1': 13, 'mean_weighted_accuracy': 4, 'F1w2': 3}[key]
    assert largest((metric(c['y_true'], c['y_pred']), (c[where] if where else c)[key]) for c in cases) < 1e-12


def test_sentiment_by_name(golden):
    data = golden('metrics_released_code')
    names = {s['index']: s['label'] for s in data['global_classes']['sentiment_intensity']}
    for c in data['cases']:
        if c['domain'] == 'sentiment_intensity':
            named = [[names.get(i) for i in c[k]] for k in ('y_true', 'y_pred')]
            assert abs(sentiment_binary_f1(*named) - c['collapsed']['F1w2']) < 1e-12
