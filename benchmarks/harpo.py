"""HARPO on a large batch against two slower manners of the same computation, in one run: medians in milliseconds
and their ratios.

python benchmarks/harpo.py [ROLLOUTS] [REPEATS]

Both loops compute the released form for one step and are checked against `HarpoConfig.released()` first.
`elements` reads and writes one
tensor element per rollout, as the authors' code does; `floats` works on dictionaries and Python floats alone.
"""

import json
import math
import statistics
import sys
import time
from collections import defaultdict

import torch

from omnisapiens_nb.rl.harpo import Harpo, HarpoConfig


def mean_of(values, keys):
    "Mean of the values of each key, row by row."
    total, count = defaultdict(float), defaultdict(int)
    for v, k in zip(values, keys):
        total[k] += v
        count[k] += 1
    return {k: total[k] / count[k] for k in total}


def released_loop(rewards, prompts, tasks):
    "The released form of a first step, pass after pass over the rollouts; groups of two or more."
    rewards = [float(x) for x in rewards]
    low, high = min(rewards), max(rewards)
    scaled, task_of = [(x - low) / (high - low) for x in rewards], dict(zip(prompts, tasks))
    mean = mean_of(scaled, prompts)
    variance = mean_of([(x - mean[q]) ** 2 for x, q in zip(scaled, prompts)], prompts)
    z = [(x - mean[q]) / max(math.sqrt(variance[q]), 1e-6) for x, q in zip(scaled, prompts)]
    size = {q: max(v, 1e-6) for q, v in mean_of(map(abs, z), prompts).items()}
    level = {m: math.log(max(0.05 * v, 1e-6)) for m, v in mean_of(map(abs, z), tasks).items()}
    factor = {m: min(max(math.exp(0.05 * (sum(level.values()) / len(level) - v)), 0.5), 4.0) for m, v in level.items()}
    reference, members = mean_of([math.log(v) for v in size.values()], [task_of[q] for q in size]), defaultdict(int)
    for q in size:
        members[task_of[q]] += 1
    for i, (x, q, m) in enumerate(zip(z, prompts, tasks)):
        s = min(max(math.exp(reference[m]) / size[q], 0.5), 3.0) if members[m] > 1 else 1.0
        yield i, x * s * factor[m]


def floats(rewards, prompts, tasks):
    found = [0.0] * len(rewards)
    for i, x in released_loop(rewards, prompts, tasks):
        found[i] = x
    return found


def elements(rewards, prompts, tasks):
    found = torch.zeros_like(rewards)
    for i, x in released_loop((rewards[i].item() for i in range(len(rewards))), prompts, tasks):
        found[i] = x
    return found


def milliseconds(function, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main(rollouts='16384', repeats='15'):
    n, repeats = int(rollouts), int(repeats)
    gen = torch.Generator().manual_seed(0)
    order = torch.randperm(n, generator=gen)
    prompts = (torch.arange(n) // 8)[order]
    tasks, rewards = prompts % 10, torch.rand(n, dtype=torch.float64, generator=gen).round(decimals=1)
    names = [f'prompt-{i}' for i in prompts.tolist()], [f'task-{i}' for i in tasks.tolist()]
    plain = rewards.tolist()
    ours = Harpo(HarpoConfig.released())(rewards, prompts, tasks).advantages
    for loop in (elements(rewards, *names), torch.tensor(floats(plain, *names), dtype=torch.float64)):
        assert torch.allclose(loop, ours, atol=1e-9)
    times = {
        form: {
            'integer ids': milliseconds(lambda: Harpo(c)(rewards, prompts, tasks), repeats),
            'string ids': milliseconds(lambda: Harpo(c)(rewards, *names), repeats),
        }
        for form, c in (('released', HarpoConfig.released()), ('corrected', HarpoConfig()))
    }
    slow = dict(
        elements=milliseconds(lambda: elements(rewards, *names), 5),
        floats=milliseconds(lambda: floats(plain, *names), 5),
    )
    ratios = {
        form: {ids: {manner: round(slow[manner] / t, 1) for manner in slow} for ids, t in by.items()}
        for form, by in times.items()
    }
    sys.stdout.write(
        json.dumps(
            dict(rollouts=n, threads=torch.get_num_threads(), milliseconds=times | slow, times_faster=ratios), indent=1
        )
        + '\n'
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
