"Fine-tuning with TRL on two processes: the gradient of one, and an interrupted run that ends as if it had not been."

import json
import os
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from safetensors.torch import load_file

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.sft.model import save_model, tiny_model
from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.targets import target_text

SECONDS = 540  # That the run on two processes may take
SAME = 1e-6  # Two sums of the same float32 numbers in another order differ by less


def launched(command):
    "What came of a command of Python on two processes."
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
    return subprocess.run(
        [sys.executable, *launch, *command],
        capture_output=True,
        text=True,
        env=os.environ | dict(OMP_NUM_THREADS='1', PYTHONFAULTHANDLER='1', PYTHONPATH=str(ROOT)),
        timeout=SECONDS,
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    write_mustard(folder / 'mustard', rows=24)
    write_siq2(folder / 'siq2', videos=(6, 1, 1))
    curate({name: folder / name for name in ('mustard', 'siq2')}, folder / 'atlas')
    texts = (row['problem'] + target_text(row) for row in open_atlas(folder / 'atlas'))
    save_model(*tiny_model(train_tokenizer(texts)), folder / 'base')
    done = launched([ROOT / 'tests' / 'two_processes.py', folder])
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def weights(folder):
    return load_file(folder / 'model.safetensors')


def largest_difference(weights, others):
    return max((weight - others[name]).abs().max() for name, weight in weights.items())


def test_each_step_has_one_signature_and_no_row_twice(folder):
    ours, theirs = (json.loads((folder / f'dealt{i}.json').read_text()) for i in range(2))
    assert len(ours) == len(theirs) == 4  # 9 rows of each signature: 8, and 1 that both get
    for a, b in zip(ours, theirs):
        assert len({row < 9 for row in a + b}) == 1
        assert a == b if len(a) == 1 else not set(a) & set(b)
    assert {row for batch in ours + theirs for row in batch} == set(range(18))


def test_two_processes_make_the_gradient_of_one(folder):
    from two_processes import DESCENT, train

    train(folder, 'one', 4, per_device_train_batch_size=4, **DESCENT)
    one = weights(folder / 'one')
    two = weights(folder / 'two')
    start = weights(folder / 'base')
    assert largest_difference(start, one) > 0.1
    assert largest_difference(two, one) < SAME
    for name in ('audio_tower.conv1.weight', 'visual.patch_embed.proj.weight'):
        assert not two[name].equal(start[name])


def test_two_processes_resume_in_the_second_epoch(folder):
    whole = weights(folder / 'whole')
    lost = weights(folder / 'lost')
    assert all(weight.equal(lost[name]) for name, weight in whole.items())
    assert not whole['lm_head.weight'].equal(weights(folder / 'base')['lm_head.weight'])


def test_the_command_on_two_processes(folder):
    "One of them makes the folder and gives it its name; the other trains along."
    train = dict(max_steps=2, per_device_train_batch_size=2, bf16=False, report_to=[], save_steps=1, logging_steps=1)
    common = dict(atlas=str(folder / 'atlas'), model=str(folder / 'base'), out=str(folder / 'answers'), device='cpu')
    (folder / 'answers.yaml').write_text(yaml.safe_dump(dict(stage='answers', rows=4, train=train, **common)))
    done = launched(['-m', 'omnisapiens_nb.cli', 'sft', '--config', folder / 'answers.yaml'])
    assert done.returncode == 0, done.stderr[-4000:]
    assert not (folder / 'answers.partial').exists()
    assert len((folder / 'answers' / 'log.jsonl').read_text().splitlines()) == 2
    assert weights(folder / 'answers').keys() == weights(folder / 'base').keys()
