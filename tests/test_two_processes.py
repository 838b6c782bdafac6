"""Fine-tuning with TRL on two processes: the same gradient as on one, and an interrupted run that ends as if it
had not been.
"""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from safetensors.torch import load_file

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.sft.model import save_model, tiny_model
from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.targets import target_text


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    write_mustard(folder / 'mustard', rows=24)
    write_siq2(folder / 'siq2', videos=(6, 1, 1))
    curate({name: folder / name for name in ('mustard', 'siq2')}, folder / 'atlas')
    model, processor = tiny_model(train_tokenizer(r['problem'] + target_text(r) for r in open_atlas(folder / 'atlas')))
    save_model(model, processor, folder / 'base')
    command = [
        sys.executable,
        '-m',
        'torch.distributed.run',
        '--standalone',
        '--nproc_per_node',
        '2',
        ROOT / 'tests' / 'two_processes.py',
        folder,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS='1'), timeout=540
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def weights(folder):
    return load_file(folder / 'model.safetensors')


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
    one, two, start = (weights(folder / name) for name in ('one', 'two', 'base'))
    assert max((one[k] - start[k]).abs().max() for k in start) > 0.1
    assert max((one[k] - two[k]).abs().max() for k in start) < 1e-6
    assert all(not two[k].equal(start[k]) for k in ('audio_tower.conv1.weight', 'visual.patch_embed.proj.weight'))


def test_two_processes_resume_in_the_second_epoch(folder):
    whole, lost, start = (weights(folder / name) for name in ('whole', 'lost', 'base'))
    assert all(whole[k].equal(lost[k]) for k in start) and not whole['lm_head.weight'].equal(start['lm_head.weight'])
