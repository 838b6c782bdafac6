"The supervised stages as users run them: recipes, interruptions at a random step, folders that do not fit."

import math
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import ROOT

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.runs.describe import describe_atlas
from omnisapiens_nb.runs.fine_tune import (
    STAGES,
    BAMRecipe,
    ClassifyRecipe,
    LMHeadRecipe,
    plan_stage,
    read_recipe,
    read_stage,
    run_bam,
    run_classify,
    run_lm_head,
)
from omnisapiens_nb.runs.folders import read_log
from omnisapiens_nb.runs.recipes import SFTRecipe
from omnisapiens_nb.runs.train import run_sft, start_model
from omnisapiens_nb.sft import fit as fitting
from omnisapiens_nb.sft.bam_training import BAMConfig
from omnisapiens_nb.sft.batches import Examples
from omnisapiens_nb.sft.fit import FitConfig
from omnisapiens_nb.sft.model import load_model, save_model
from omnisapiens_nb.sft.stages import ClassifyConfig, load_stages
from omnisapiens_nb.sft.trl_trainer import SFTCollator
from omnisapiens_nb.sft.warmstart import SFTConfig

STEPS = 11
TRAIN = dict(steps=STEPS, batch=8, save_every=3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A described Atlas, a tiny model, and a base that was warmed up on it."
    folder = tmp_path_factory.mktemp('supervised')
    write_cremad(folder / 'cremad', actors=5)
    write_siq2(folder / 'siq2', videos=(8, 2, 2))
    curate({name: folder / name for name in ('cremad', 'siq2')}, folder / 'plain')
    atlas = describe_atlas(folder / 'plain', folder / 'atlas')
    start_model(atlas, folder / 'start')
    train = SFTConfig(steps=8, batch=8)
    run_sft(SFTRecipe(atlas=atlas, out=folder / 'base', model=str(folder / 'start'), train=train))
    return folder


def recipe(folder, stage, out):
    "A recipe of a stage, and what runs it."
    common = dict(atlas=folder / 'atlas', out=folder / out)
    if stage == 'warm_start':
        return SFTRecipe(model=str(folder / 'start'), train=SFTConfig(**TRAIN), **common), run_sft
    if stage == 'classify':
        train = ClassifyConfig(lr=5e-3, **TRAIN)
        return ClassifyRecipe(stage=stage, model=str(folder / 'base'), train=train, **common), run_classify
    if stage == 'lm_head':
        train = FitConfig(lr=5e-3, **TRAIN)
        return LMHeadRecipe(stage=stage, model=str(folder / 'classify-whole'), train=train, **common), run_lm_head
    train = BAMConfig(lr=3e-3, **TRAIN)
    return BAMRecipe(model=str(folder / 'lm_head-whole'), train=train, **common), run_bam


class Stopped(Exception):
    pass


def stops_before(at, step):
    "A step of the loop that stops the run before step `at`."
    done = []

    def stopping(*args):
        if len(done) == at:
            raise Stopped
        done.append(1)
        return step(*args)

    return stopping


@pytest.mark.parametrize('stage', ['warm_start', 'classify', 'lm_head', 'bam'])
def test_interrupted_at_a_random_step(folder, monkeypatch, stage):
    "Log and every file are those of a run that nobody stopped, bit for bit."
    whole, run = recipe(folder, stage, f'{stage}-whole')
    run(whole)
    rounds = 2 * STEPS if stage == 'bam' else STEPS  # Two datasets
    at = random.randrange(1, rounds)
    again, _ = recipe(folder, stage, f'{stage}-again')
    with monkeypatch.context() as patch:
        patch.setattr(fitting, '_step', stops_before(at, fitting._step))
        with pytest.raises(Stopped):
            run(again)
    run(again, resume=True)
    log = read_log(whole.out)
    assert len(log) == rounds
    assert read_log(again.out) == log, f'stopped before step {at}'
    names = sorted(path.name for path in whole.out.iterdir())
    assert sorted(path.name for path in again.out.iterdir()) == names
    for name in names:
        same = (again.out / name).read_bytes() == (whole.out / name).read_bytes()
        assert same, f'{name}, stopped before step {at}'


def wait_for(path, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)


def kill_at_a_checkpoint(config, checkpoint):
    "Begin a stage by its command, and kill it a moment after its first checkpoint."
    process = subprocess.Popen(
        [sys.executable, '-m', 'omnisapiens_nb.cli', 'sft', '--config', str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | dict(OMP_NUM_THREADS='1'),
    )
    wait_for(checkpoint)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_and_resumed_by_command(folder, cli, cli_here, tmp_path):
    for out in ('whole', 'killed'):
        common = dict(atlas=str(folder / 'atlas'), model=str(folder / 'base'), out=str(tmp_path / out))
        made = dict(stage='classify', **common, train=TRAIN | dict(steps=60, lr=5e-3))
        (tmp_path / f'{out}.yaml').write_text(yaml.safe_dump(made))
    assert cli_here('sft', '--config', tmp_path / 'whole.yaml').returncode == 0
    kill_at_a_checkpoint(tmp_path / 'killed.yaml', tmp_path / 'killed.partial' / 'state.pt')
    assert not (tmp_path / 'killed').exists()
    refused = cli_here('sft', '--config', tmp_path / 'killed.yaml')
    assert refused.returncode == 1
    assert '--resume' in refused.stderr and 'Traceback' not in refused.stderr
    resumed = cli('sft', '--config', tmp_path / 'killed.yaml', '--resume')
    assert resumed.returncode == 0, resumed.stderr
    for path in (tmp_path / 'whole').iterdir():
        assert path.read_bytes() == (tmp_path / 'killed' / path.name).read_bytes(), path.name


def stage_of(path):
    "What a recipe's file says of its stage, None where it is of another kind."
    return yaml.safe_load(path.read_text(encoding='utf-8')).get('stage')


STAGED = [path for path in sorted((ROOT / 'recipes').rglob('*.yaml')) if stage_of(path)]


@pytest.mark.parametrize('path', STAGED, ids=lambda p: f'{p.parent.name}-{p.stem}')
def test_recipes_are_valid(path):
    stage = stage_of(path)
    assert stage in {*STAGES, 'bam'}
    if stage == 'bam':
        read_recipe(path, BAMRecipe)
    else:
        read_stage(path)


@pytest.mark.parametrize(
    'size, trained', [('7b', '80,829,977 of 9,012,643,865'), ('3b_16gb', '59,918,361 of 4,763,382,809')]
)
def test_plan_of_the_released_sizes(size, trained):
    assert trained in plan_stage(read_stage(ROOT / 'recipes' / size / 'classify.yaml'))


def test_the_paper_s_settings():
    "First paper, training details."
    train = read_stage(ROOT / 'recipes' / '7b' / 'classify.yaml').train
    assert (train.rank, train.alpha, train.dropout, train.lr, train.epochs, train.batch) == (32, 64, 0.05, 1e-4, 5, 512)
    bam = read_recipe(ROOT / 'recipes' / '7b' / 'bam.yaml', BAMRecipe)
    assert (bam.train.epochs, bam.train.inner) == (4, 256)
    assert bam.extractors == dict(video='landmarks', audio='compare')


def test_bam_by_command_says_what_is_wrong(folder, cli, cli_here, tmp_path):
    common = dict(atlas=str(folder / 'atlas'), out=str(tmp_path / 'bam'), model=str(folder / 'base'))

    def complaint(call=cli_here, **changes):
        made = common | dict(train=dict(steps=2)) | changes
        (tmp_path / 'bam.yaml').write_text(yaml.safe_dump(made))
        result = call('bam', '--config', tmp_path / 'bam.yaml')
        assert result.returncode == 1
        assert 'Traceback' not in result.stderr
        assert not (tmp_path / 'bam').exists()
        return result.stderr

    assert 'no heads.safetensors' in complaint(cli)
    assert 'train.innr' in complaint(train=dict(innr=3))
    assert 'datasets' in complaint(datasets=['crema'])
    assert 'give steps or epochs' in complaint(train=dict(steps=3, epochs=2))


RELEASED = dict(betas=(0.9, 0.999), weight_decay=0, clip=None, warmup_steps=2, plan='parts', loss_scale=1024)


def half_of(folder, out):
    "The base in float16."
    model, processor = load_model(folder / 'base', 'cpu', dtype=torch.float16)
    save_model(model, processor, out)
    return str(out)


def test_the_released_form_of_both_stages(folder, tmp_path):
    "In float16, with LoRA in the towers too, bare answers, and heads that answer over the whole domain."
    common = dict(atlas=folder / 'atlas', dtype='float16')
    train = ClassifyConfig(**RELEASED, steps=4, batch=8, accumulate=4, lr=5e-3, reach='suffix', whole_domain=True)
    base = half_of(folder, tmp_path / 'half')
    first = ClassifyRecipe(stage='classify', model=base, out=tmp_path / 'classify', train=train, **common)
    run_classify(first)
    rates = [step['lr'] / 5e-3 for step in read_log(first.out)]
    assert rates[:3] == [0, 0.5, 1] and rates[3] == pytest.approx((1 + math.cos(math.pi / 14)) / 2)
    assert not any('skipped' in step for step in read_log(first.out))
    model, heads, _ = load_stages(first.out, 'cpu', dtype='auto')
    trained = {name.split('.lora_')[0] for name, w in model.named_parameters() if 'lora_B' in name and w.any()}
    assert {'audio_tower' in name for name in trained} == {True, False} and heads.whole_domain
    second = LMHeadRecipe(
        stage='lm_head',
        model=str(first.out),
        out=tmp_path / 'sft',
        target='lower',
        train=FitConfig(**RELEASED, steps=3, batch=4),
        **common,
    )
    run_lm_head(second)
    assert len(read_log(second.out)) == 3


def test_what_overflows_is_left_out_and_said(folder, tmp_path):
    train = ClassifyConfig(steps=2, batch=4, loss_scale=1e30)
    made = ClassifyRecipe(
        stage='classify',
        model=half_of(folder, tmp_path / 'half'),
        out=tmp_path / 'out',
        atlas=folder / 'atlas',
        dtype='float16',
        train=train,
    )
    run_classify(made)
    assert [step.get('skipped') for step in read_log(made.out)] == [1, 1]
    assert all(not w.any() for name, w in load_stages(made.out, 'cpu')[0].named_parameters() if 'lora_B' in name)


@pytest.mark.parametrize('target', ['answer', 'lower'])
def test_trl_trains_on_bare_answers_with_the_end_token(folder, target):
    _, processor = load_model(folder / 'base', 'cpu')
    store = open_atlas(folder / 'atlas', 'train')
    rows = [i for i in range(len(store)) if store[i]['task'].endswith('_qa')][:2]
    collate = SFTCollator(processor, Examples(store, processor, rows), target)
    labels = collate([dict(row=0), dict(row=1)])['labels']
    for row, found in zip(rows, labels):
        answer = store[row]['answer']
        wanted = answer.lower() if target == 'lower' else answer
        assert processor.tokenizer.decode(found[found >= 0]) == wanted + '<|im_end|>'
