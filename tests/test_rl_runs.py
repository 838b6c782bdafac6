"Reinforcement learning on two processes, killed and resumed, and on a full disk: by our loop and by TRL's trainer."

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT
from rl_runs import KILLS, descended

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl.harpo import Harpo
from omnisapiens_nb.runs.reinforce import read_rl
from omnisapiens_nb.sft.model import save_model, tiny_model
from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.targets import target_text

SECONDS = 540  # That a run may take
ROLLOUTS = 4  # Of a prompt, in the runs by TRL
SAME = 1e-6  # Two sums of the same float32 numbers in another order differ by less


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rl')
    write_cremad(folder / 'cremad', actors=2)
    write_mustard(folder / 'mustard', rows=8)
    write_siq2(folder / 'siq2', videos=(2, 1, 1))
    curate({name: folder / name for name in ('cremad', 'mustard', 'siq2')}, folder / 'atlas')
    save_model(*start(folder), folder / 'base')
    return folder


def start(folder):
    "A model with random weights and its processor, the same in each call."
    texts = (row['problem'] + target_text(row) for row in open_atlas(folder / 'atlas'))
    return tiny_model(train_tokenizer(texts))


@pytest.fixture(scope='module')
def on_two(folder):
    "What three runs on two processes left, made by one launch, since each process has much to import."
    run(folder, 'descended=two', 'looped=loop', 'shared=ranks', processes=2)
    return folder


def run(folder, *runs, processes=0):
    "Run rl_runs.py, under torchrun where processes are asked for."
    launch = []
    if processes:
        launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]
    done = subprocess.run(
        [sys.executable, *launch, ROOT / 'tests' / 'rl_runs.py', folder, *runs],
        capture_output=True,
        text=True,
        env=os.environ | dict(OMP_NUM_THREADS='1', PYTHONFAULTHANDLER='1'),
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def notes(folder, name):
    return json.loads((folder / f'{name}.json').read_text())


def test_tasks_on_unequal_ranks(on_two):
    "TRL on two processes, a task on one of them alone: the advantages and the memory of one process that has all rows."
    ours = notes(on_two, 'ranks0')
    theirs = notes(on_two, 'ranks1')
    alone = Harpo()
    for a, b in zip(ours['steps'], theirs['steps'], strict=True):
        assert a['rewards'] == b['rewards']
        assert ('b' in a['tasks']) != ('b' in b['tasks'])
        tasks = a['tasks'] + b['tasks']
        prompts = [i // ROLLOUTS for i in range(len(tasks))]
        expected = alone(torch.tensor(a['rewards']), prompts, tasks).advantages
        assert expected.abs().sum() > 0
        assert expected.tolist() == a['advantages'] + b['advantages']
    assert json.loads(json.dumps(alone.state_dict())) == ours['state'] == theirs['state']


def test_the_loop_on_two_processes(on_two):
    "Five prompts in unequal shares: the advantages of one process, and the same weights in both."
    ours = notes(on_two, 'loop0')
    theirs = notes(on_two, 'loop1')
    alone = Harpo()
    for a, b in zip(ours['steps'], theirs['steps'], strict=True):
        assert a['facts'] == b['facts'] and len(a['mine']) < len(b['mine'])
        rewards = torch.tensor([fact['reward'] for fact in a['facts']], dtype=torch.float64)
        prompts = [fact['prompt'] for fact in a['facts']]
        tasks = [fact['task'] for fact in a['facts']]
        expected = alone(rewards, prompts, tasks).advantages.tolist()
        assert expected == a['advantages'] == a['mine'] + b['mine']
    assert ours['weights'] == theirs['weights']


def largest_difference(weights, others):
    return max((weight - others[name]).abs().max() for name, weight in weights.items())


def test_two_processes_descend_as_one(on_two):
    descended(on_two, 'one')
    one = torch.load(on_two / 'one0.pt')
    model, _ = start(on_two)
    assert largest_difference(one, model.state_dict()) > 0.1
    for name in ('two0', 'two1'):
        assert largest_difference(one, torch.load(on_two / f'{name}.pt')) < SAME


def test_killed_at_random_and_a_full_disk(folder):
    "Weights, rewards and the balancer's memory end as those of a run that nobody stopped, bit for bit."
    run(folder, 'killed=kills')
    found = notes(folder, 'kills')
    assert found.pop('whole') == [0]
    assert found['ended'] == [-9, 'checkpoint-12', 0]
    codes = [codes for name, (_, *codes) in found.items() if name.startswith('killed')]
    assert codes == [[-9, 0]] * KILLS, found
    assert found['full'] == [1, 'checkpoint-4', 0]
    whole = folder / 'whole' / 'done'
    generations = json.loads((whole / 'facts.json').read_text())['log']
    assert len(generations) == 6  # Of two steps each
    for name, how in found.items():
        for file in ('model.safetensors', 'facts.json'):
            assert (folder / name / 'done' / file).read_bytes() == (whole / file).read_bytes(), (name, how)


@pytest.mark.parametrize('field, successor', [('live_only', 'deviation_floor'), ('eps', 'dead_range')])
def test_a_recipe_of_an_older_form_is_told_what_to_write(tmp_path, field, successor):
    recipe = dict(atlas='atlas', model='base', out='out', train=dict(estimator='harpo_released', harpo={field: 0}))
    path = tmp_path / 'rl.yaml'
    path.write_text(yaml.safe_dump(recipe))
    with pytest.raises(SourceError, match=f'{field} is no longer a field of HARPO; write .*`{successor}`') as told:
        read_rl(path)
    assert len(str(told.value).splitlines()) == 1
