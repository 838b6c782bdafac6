"Reinforcement learning on two processes, killed and resumed, and on a full disk: by our loop and by TRL's trainer."

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl.harpo import Harpo
from omnisapiens_nb.sft.model import save_model, tiny_model
from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.targets import target_text


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rl')
    write_cremad(folder / 'cremad', actors=2)
    write_mustard(folder / 'mustard', rows=8)
    write_siq2(folder / 'siq2', videos=(2, 1, 1))
    curate({name: folder / name for name in ('cremad', 'mustard', 'siq2')}, folder / 'atlas')
    model, processor = tiny_model(train_tokenizer(r['problem'] + target_text(r) for r in open_atlas(folder / 'atlas')))
    save_model(model, processor, folder / 'base')
    return folder


def run(folder, kind, name, processes=0):
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)] if processes else []
    done = subprocess.run(
        [sys.executable, *launch, ROOT / 'tests' / 'rl_runs.py', folder, kind, name],
        capture_output=True,
        text=True,
        env=os.environ | dict(OMP_NUM_THREADS='1'),
        timeout=540,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def notes(folder, name):
    return json.loads((folder / f'{name}.json').read_text())


def test_tasks_on_unequal_ranks(folder):
    "TRL on two processes, a task on one of them alone: the advantages and the memory of one process that has all rows."
    run(folder, 'shared', 'ranks', processes=2)
    ours, theirs = notes(folder, 'ranks0'), notes(folder, 'ranks1')
    alone = Harpo()
    for a, b in zip(ours['steps'], theirs['steps'], strict=True):
        assert (
            a['rewards'] == b['rewards']
            and a['tasks'] != b['tasks']
            and {'b'} & set(a['tasks']) ^ {'b'} & set(b['tasks'])
        )
        tasks = a['tasks'] + b['tasks']
        expected = alone(torch.tensor(a['rewards']), [i // 4 for i in range(len(tasks))], tasks).advantages
        assert expected.abs().sum() > 0 and expected.tolist() == a['advantages'] + b['advantages']
    assert json.loads(json.dumps(alone.state_dict())) == ours['state'] == theirs['state']


def test_the_loop_on_two_processes(folder):
    "Five prompts in unequal shares: the advantages of one process, and the same weights in both."
    run(folder, 'looped', 'loop', processes=2)
    ours, theirs = notes(folder, 'loop0'), notes(folder, 'loop1')
    alone = Harpo()
    for a, b in zip(ours['steps'], theirs['steps'], strict=True):
        assert a['facts'] == b['facts'] and len(a['mine']) < len(b['mine'])
        expected = alone(
            torch.tensor([f['reward'] for f in a['facts']], dtype=torch.float64),
            [f['prompt'] for f in a['facts']],
            [f['task'] for f in a['facts']],
        ).advantages
        assert expected.tolist() == a['advantages'] == a['mine'] + b['mine']
    assert ours['weights'] == theirs['weights']


def test_two_processes_descend_as_one(folder):
    for name, processes in (('one', 0), ('two', 2)):
        run(folder, 'descended', name, processes)
    one, *two = (torch.load(folder / f'{name}.pt') for name in ('one0', 'two0', 'two1'))
    start, _ = tiny_model(train_tokenizer(r['problem'] + target_text(r) for r in open_atlas(folder / 'atlas')))
    assert max((one[k] - w).abs().max() for k, w in start.state_dict().items()) > 0.1
    for weights in two:
        assert max((one[k] - w).abs().max() for k, w in weights.items()) < 1e-6


def test_killed_ten_times_and_a_full_disk(folder):
    "Weights, rewards and the balancer's memory end as those of a run that nobody stopped, bit for bit."
    run(folder, 'killed', 'kills')
    facts = notes(folder, 'kills')
    assert facts.pop('whole') == [0]
    assert facts['ended'] == [-9, 'checkpoint-12', 0]
    codes = [f[1:] for name, f in facts.items() if name.startswith('killed')]
    assert all(code == [-9, 0] for code in codes) and len(codes) == 10, facts
    failed, last, resumed = facts['full']
    assert failed == 1 and last == 'checkpoint-4' and resumed == 0
    whole = folder / 'whole' / 'done'
    assert len(json.loads((whole / 'facts.json').read_text())['log']) == 6  # Generations, of two steps each
    for name in facts:
        for file in ('model.safetensors', 'facts.json'):
            assert (folder / name / 'done' / file).read_bytes() == (whole / file).read_bytes(), (name, facts[name])
