"""Every estimator in the testbed's two worlds under three update rules, and maps over two knobs; the numbers go to
nbs/results.

python benchmarks/testbed.py [SEEDS] [WORKERS]     (or `make testbed`)
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from omnisapiens_nb.rl.advantages import ESTIMATORS
from omnisapiens_nb.rl.testbed import ALIKE, UNLIKE, TaskSpec, TestbedConfig, World, summary, train, warm_up
from omnisapiens_nb.runs.machine import facts

RESULTS = Path(__file__).parents[1] / 'nbs' / 'results'
WORLDS = dict(alike=ALIKE, unlike=UNLIKE)
RULES = dict(sgd={}, equalised=dict(equalise=True), adam=dict(optimizer='adam'))
MAPPED = ('grpo', 'harpo', 'harpo_released', 'equal_share')
DEAD, NOISE, SHARE = (0.0, 0.25, 0.5, 0.75, 0.9), (0.0, 0.2, 0.4, 0.6, 0.8), (0.125, 0.25, 0.5, 1.0, 2.0)


def half(**knobs):
    "Eight tasks, four of them with some knobs turned."
    return tuple(TaskSpec(f'plain{i}') for i in range(4)) + tuple(TaskSpec(f'turned{i}', **knobs) for i in range(4))


def one(job):
    "Run some estimators from one start; a table of runs and one of tasks."
    labels, tasks, names, rule, seeds = job
    torch.set_num_threads(1)
    world = World(tasks, range(seeds))
    start = warm_up(world)
    begin, runs, by_task = world.scores(start), [], []
    for name in names:
        run = train(world, start, TestbedConfig(name, **rule))
        runs.append(summary(run, world).assign(estimator=name, start=begin.mean(1).round(decimals=5), **labels))
        for i, t in enumerate(tasks):
            by_task.append(
                dict(
                    estimator=name,
                    task=t.name,
                    start=begin[:, i].mean().item(),
                    end=run.scores[-1, :, i].mean().item(),
                    share=run.share[:, i].mean().item(),
                    live=run.live[:, i].mean().item(),
                    **labels,
                )
            )
    return pd.concat(runs), pd.DataFrame(by_task).round(5)


def save(table, name):
    table.to_csv(RESULTS / f'testbed_{name}.csv.gz', index=False, compression=dict(method='gzip', mtime=0))


def main(seeds='40', workers='2'):
    seeds, begun = int(seeds), time.monotonic()
    names = list(ESTIMATORS)
    tables = [
        (dict(world=w, rule=r), tasks, names[k::3], rule, seeds)
        for (w, tasks), (r, rule) in product(WORLDS.items(), RULES.items())
        for k in range(3)
    ]
    maps = [
        (dict(map='noise', dead=d, knob=n), half(dead=d, noise=n), MAPPED, RULES['equalised'], seeds // 2)
        for d, n in product(DEAD, NOISE)
    ]
    maps += [
        (dict(map='share', dead=d, knob=s), half(dead=d, share=s), MAPPED, RULES['equalised'], seeds // 2)
        for d, s in product(DEAD, SHARE)
    ]
    with ProcessPoolExecutor(int(workers)) as pool:
        done = list(pool.map(one, tables + maps))
    save(pd.concat(runs for runs, _ in done[: len(tables)]), 'runs')
    save(pd.concat(tasks for _, tasks in done[: len(tables)]), 'tasks')
    save(pd.concat(runs for runs, _ in done[len(tables) :]), 'maps')
    seconds = time.monotonic() - begun
    run = facts(f'python benchmarks/testbed.py {seeds} {workers}', seconds, seeds=seeds, map_seeds=seeds // 2)
    (RESULTS / 'testbed_run.json').write_text(json.dumps(run, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
