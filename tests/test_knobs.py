"""The page with HARPO's knobs: its JavaScript computes what the package does, and its sliders move the picture."""

import json
import math
import random
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, required
from test_pages import modules

from omnisapiens_nb.rl.harpo import OPEN, Harpo, HarpoConfig, task_factors

NOTEBOOK = ROOT / 'nbs' / 'rl' / '19_harpo_knobs.ipynb'
PAGE = 'rl/harpo_knobs.html'
FORMS = dict(paper=HarpoConfig.paper(), released=HarpoConfig.released(), corrected=HarpoConfig())
TASKS = 'ABC'
STEPS = 200
CHANGE = 40  # The last step before task C is what the sliders say
GROUPS = 20
ROLLOUTS = 50  # Of a group: enough for contributions from .2
PATIENCE = 120  # Seconds that node may take


def node():
    "Node.js, or a skip."
    found = shutil.which('node')
    if not found:
        required('no Node.js: it runs the script of the page')
    return found


@pytest.fixture(scope='module')
def script():
    "The script of the page, from the stored output of its notebook."
    notebook = json.loads(NOTEBOOK.read_text(encoding='utf-8'))
    outputs = [output for cell in notebook['cells'] for output in cell.get('outputs', [])]
    texts = [''.join(output.get('data', {}).get('text/html', '')) for output in outputs]
    (found,) = [text for text in texts if 'harpo-knobs' in text]
    (inside,) = re.findall(r'<script>(.*?)</script>', found, re.S)
    return inside


def arithmetic(script):
    "The part of the script that needs no page."
    head, mark, _ = script.partition('globalThis.harpoKnobs = { run }')
    assert mark, 'the script gives its function another name'
    return f'{head}{mark}}})()'


def by_script(script, settings):
    "What the script computes for a list of settings: a list of steps for each."
    lines = [
        arithmetic(script),
        "const settings = JSON.parse(require('fs').readFileSync(0, 'utf8'))",
        'console.log(JSON.stringify(settings.map(globalThis.harpoKnobs.run)))',
    ]
    command = [node(), '-e', '\n'.join(lines)]
    result = subprocess.run(command, input=json.dumps(settings), capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def group(contribution):
    "Rewards of a group whose mean |advantage| is the contribution: a pair at ±1, all others at ±t."
    rest = ROLLOUTS - 2
    # Mean over deviation is the contribution: (2 + rest t)**2 = contribution**2 ROLLOUTS (2 + rest t**2)
    square = contribution**2 * ROLLOUTS
    a, half_b, c = rest**2 - square * rest, 2 * rest, 4 - 2 * square
    t = (math.sqrt(max(half_b**2 - a * c, 0)) - half_b) / a
    return [1.0, -1.0] + [t, -t] * (rest // 2)


def batch_of(tasks):
    "Rewards, prompts and tasks of a batch, with the dead groups of a task first."
    rewards = []
    for task in tasks.values():
        dead = [0.0] * ROLLOUTS * task['dead']
        rewards += dead + group(task['live']) * (GROUPS - task['dead'])
    prompts = torch.arange(len(rewards)) // ROLLOUTS
    return torch.tensor(rewards, dtype=torch.float64), prompts, prompts // GROUPS


def tasks_at(step, settings):
    "The tasks of a step; the third has a past."
    tasks = dict(zip(TASKS, settings['tasks']))
    if step > CHANGE or settings['before'] == 'same':
        return tasks
    third = tasks.pop('C')
    return tasks if settings['before'] == 'absent' else tasks | dict(C=third | dict(dead=0))


def config_of(settings):
    "The package's configuration for settings of the page."
    changes = dict(beta_contribution=settings['beta'], beta_factor=settings['beta'])
    clamps = settings['clamps']
    changes['task_clamp'] = (settings['least'], settings['greatest']) if clamps else OPEN
    changes['sample_clamp'] = (0.5, 3.0) if clamps else OPEN
    return replace(FORMS[settings['form']], **changes)


def near(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def sample_factors_of(step, tasks):
    "Sample factor of each task's live groups; they come last."
    of_tasks = step.sample_factor.view(len(tasks), -1)
    return of_tasks[:, -1].tolist()


def check(step, tasks, found):
    "Compare a step of the package, on rewards, with one of the script."
    contributions = list(step.contribution.values())
    total = sum(contributions)
    assert found['contribution'] == near(contributions)
    assert found['factors'] == near(list(step.task_factor.values()))
    assert found['product'] == near(math.prod(step.task_factor.values()))
    assert found['share'] == near(list(step.share.values()))
    assert found['before'] == near([x / total for x in contributions])
    assert found['scale'] == near(step.scale)
    assert found['size'] == near(step.advantages.abs().mean().item() * len(tasks) / total)
    assert found['clamped'] == step.task_clamped
    for task, ours, theirs in zip(tasks.values(), sample_factors_of(step, tasks), found['sample'], strict=True):
        assert task['dead'] == GROUPS or theirs == near(ours)


def settings_with(**changes):
    "The settings that the page begins with, some of them changed."
    tasks = [dict(live=0.98, dead=2), dict(live=0.9, dead=8), dict(live=0.8, dead=14)]
    first = dict(form='paper', tasks=tasks, before='alive', beta=0.95, clamps=False, least=0.5, greatest=4)
    return first | changes


def drawn(seed):
    "Settings at random, ends of the sliders among them; no bound is 1, where rounding would decide what meets it."
    rng = random.Random(seed)
    tasks = []
    for _ in TASKS:
        live = rng.choice([0.2, 1.0, round(rng.uniform(0.2, 1), 2)])
        tasks.append(dict(live=live, dead=rng.choice([0, 1, 19, 20, rng.randint(0, 20)])))
    return dict(
        form=rng.choice(list(FORMS)),
        tasks=tasks,
        before=rng.choice(['same', 'absent', 'alive']),
        beta=rng.choice([0, 0.5, 0.95, 0.99]),
        clamps=rng.random() < 0.6,
        least=rng.choice([0.1, 0.5, 0.95]),
        greatest=rng.choice([1.5, 4, 10]),
    )


def follow(settings):
    "Steps of the package on rewards, and the tasks of each."
    estimator = Harpo(config_of(settings))
    batches = {}
    for number in range(1, STEPS + 1):
        tasks = tasks_at(number, settings)
        key = json.dumps(tasks)
        if key not in batches:
            batches[key] = batch_of(tasks)
        yield estimator(*batches[key]), tasks


def test_the_stored_script_is_what_the_cells_say(script):
    cells = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
    sources = [''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code']
    parts = [part for source in sources for part in re.findall(r'= r"""\n(.*?)"""', source, re.S)]
    assert len(parts) == 5
    assert all(part in script for part in parts)


def test_groups_have_their_contribution():
    for contribution in (0.2, 0.21, 0.5, 0.97, 0.98, 0.99, 1.0):
        rewards = torch.tensor(group(contribution), dtype=torch.float64)
        assert (rewards.abs().mean() / rewards.std(correction=0)).item() == near(contribution)


def test_the_script_computes_what_the_package_does(script):
    "Every number of every step: the first settings in every form, and trials of the page."
    equal = [dict(live=0.9, dead=0)] * 3
    gone = [dict(live=0.98, dead=2), dict(live=0.9, dead=8), dict(live=0.8, dead=20)]
    every = [settings_with(form=form, clamps=form != 'paper') for form in FORMS]
    every.append(settings_with(form='released', clamps=True, tasks=equal, before='absent'))
    every.append(settings_with(form='released', clamps=True, tasks=gone, before='same'))
    for settings, steps in zip(every, by_script(script, every), strict=True):
        for (step, tasks), found in zip(follow(settings), steps, strict=True):
            check(step, tasks, found)


def test_factors_of_many_settings(script):
    "Both levels by the package's functions, on contributions in place of rewards."
    every = [drawn(seed) for seed in range(200)]
    for settings, steps in zip(every, by_script(script, every), strict=True):
        config = config_of(settings)
        memory = {}
        for number, found in enumerate(steps, 1):
            tasks = tasks_at(number, settings)
            p = {name: task['live'] * (1 - task['dead'] / GROUPS) for name, task in tasks.items()}
            factors, met = task_factors(memory, p, config)
            assert found['factors'] == pytest.approx(factors.tolist(), rel=1e-9), settings
            assert found['clamped'] == met, settings
        last = sample_factors_of(Harpo(config)(*batch_of(tasks)), tasks)
        for task, ours, theirs in zip(tasks.values(), last, found['sample'], strict=True):
            assert task['dead'] == GROUPS or theirs == near(ours), settings


def test_a_slider_moves_the_picture(site):
    "In a browser: pictures, table and sentence change with the sliders, by keyboard too; the reset takes all back."
    chromium = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if not chromium:
        required('no chromium: install it to look at the page')
    command = [node(), ROOT / 'tests' / 'knobs.mjs', site / PAGE, modules(), chromium]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines() == []
