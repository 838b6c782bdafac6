"The supervised stages as users run them: recipes, interruptions at a random step, folders that do not fit."

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.extract import describe_atlas
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.runs.folders import read_log
from omnisapiens_nb.runs.recipes import SFTRecipe
from omnisapiens_nb.runs.supervised import (
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
from omnisapiens_nb.runs.training import run_sft, start_model
from omnisapiens_nb.sft import warmstart
from omnisapiens_nb.sft.bam_training import BAMConfig
from omnisapiens_nb.sft.stages import ClassifyConfig
from omnisapiens_nb.sft.warmstart import FitConfig, SFTConfig

STEPS = 11
TRAIN = dict(steps=STEPS, batch=8, save_every=3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('supervised')
    write_cremad(folder / 'cremad', actors=5)
    write_siq2(folder / 'siq2', videos=(8, 2, 2))
    curate({name: folder / name for name in ('cremad', 'siq2')}, folder / 'plain')
    describe_atlas(folder / 'plain', folder / 'atlas')
    start_model(folder / 'atlas', folder / 'start')
    run_sft(
        SFTRecipe(
            atlas=folder / 'atlas', out=folder / 'base', model=str(folder / 'start'), train=SFTConfig(steps=8, batch=8)
        )
    )
    return folder


def recipe(folder, stage, out):
    common = dict(atlas=folder / 'atlas', out=folder / out)
    return {
        'warm_start': lambda: (SFTRecipe(model=str(folder / 'start'), train=SFTConfig(**TRAIN), **common), run_sft),
        'classify': lambda: (
            ClassifyRecipe(stage=stage, model=str(folder / 'base'), train=ClassifyConfig(lr=5e-3, **TRAIN), **common),
            run_classify,
        ),
        'lm_head': lambda: (
            LMHeadRecipe(
                stage=stage, model=str(folder / 'classify-whole'), train=FitConfig(lr=5e-3, **TRAIN), **common
            ),
            run_lm_head,
        ),
        'bam': lambda: (
            BAMRecipe(model=str(folder / 'lm_head-whole'), train=BAMConfig(lr=3e-3, **TRAIN), **common),
            run_bam,
        ),
    }[stage]()


class Stopped(Exception):
    pass


@pytest.mark.parametrize('stage', ['warm_start', 'classify', 'lm_head', 'bam'])
def test_interrupted_at_a_random_step(folder, monkeypatch, stage):
    "Log and every file are those of a run that nobody stopped, bit for bit."
    whole, run = recipe(folder, stage, f'{stage}-whole')
    run(whole)
    rounds = 2 * STEPS if stage == 'bam' else STEPS  # Two datasets
    at, done, step = random.randrange(1, rounds), [], warmstart._step

    def stopping(*args):
        if len(done) == at:
            raise Stopped
        done.append(1)
        return step(*args)

    again, _ = recipe(folder, stage, f'{stage}-again')
    with monkeypatch.context() as patch:
        patch.setattr(warmstart, '_step', stopping)
        with pytest.raises(Stopped):
            run(again)
    run(again, resume=True)
    assert read_log(again.out) == read_log(whole.out) and len(read_log(whole.out)) == rounds, (
        f'stopped before step {at}'
    )
    names = sorted(p.name for p in whole.out.iterdir())
    assert sorted(p.name for p in again.out.iterdir()) == names
    assert all((again.out / n).read_bytes() == (whole.out / n).read_bytes() for n in names), f'stopped before step {at}'


def test_killed_and_resumed_by_command(folder, cli, tmp_path):
    for out in ('whole', 'killed'):
        made = dict(
            stage='classify',
            atlas=str(folder / 'atlas'),
            model=str(folder / 'base'),
            out=str(tmp_path / out),
            train=dict(TRAIN, steps=60, lr=5e-3),
        )
        (tmp_path / f'{out}.yaml').write_text(yaml.safe_dump(made))
    assert cli('sft', '--config', tmp_path / 'whole.yaml').returncode == 0
    command = [sys.executable, '-m', 'omnisapiens_nb.cli', 'sft', '--config', str(tmp_path / 'killed.yaml')]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | dict(OMP_NUM_THREADS='1')
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / 'killed.partial' / 'state.pt').is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'killed').exists()
    refused = cli('sft', '--config', tmp_path / 'killed.yaml')
    assert refused.returncode == 1 and '--resume' in refused.stderr and 'Traceback' not in refused.stderr
    resumed = cli('sft', '--config', tmp_path / 'killed.yaml', '--resume')
    assert resumed.returncode == 0, resumed.stderr
    for path in (tmp_path / 'whole').iterdir():
        assert path.read_bytes() == (tmp_path / 'killed' / path.name).read_bytes(), path.name


STAGED = {
    p: stage
    for p in sorted((ROOT / 'recipes').rglob('*.yaml'))
    if (stage := yaml.safe_load(p.read_text(encoding='utf-8')).get('stage'))
}


@pytest.mark.parametrize('path', STAGED, ids=lambda p: f'{p.parent.name}-{p.stem}')
def test_recipes_are_valid(path):
    assert STAGED[path] in {*STAGES, 'bam'}
    read_recipe(path, BAMRecipe) if STAGED[path] == 'bam' else read_stage(path)


@pytest.mark.parametrize(
    'size, trained', [('7b', '80,829,977 of 9,012,643,865'), ('3b_16gb', '59,918,361 of 4,763,382,809')]
)
def test_plan_of_the_released_sizes(size, trained):
    assert trained in plan_stage(read_stage(ROOT / 'recipes' / size / 'classify.yaml'))


def test_the_paper_s_settings():
    "First paper, training details: r 32, alpha 64, dropout .05, lr 1e-4, 5 epochs, effective batch 512; BAM 4 epochs, hidden 256."
    train = read_stage(ROOT / 'recipes' / '7b' / 'classify.yaml').train
    assert (train.rank, train.alpha, train.dropout, train.lr, train.epochs, train.batch) == (32, 64, 0.05, 1e-4, 5, 512)
    bam = read_recipe(ROOT / 'recipes' / '7b' / 'bam.yaml', BAMRecipe)
    assert (bam.train.epochs, bam.train.inner, bam.extractors) == (4, 256, dict(video='landmarks', audio='compare'))


def test_bam_by_command_says_what_is_wrong(folder, cli, tmp_path):
    def bam(**changes):
        made = (
            dict(
                atlas=str(folder / 'atlas'), out=str(tmp_path / 'bam'), model=str(folder / 'base'), train=dict(steps=2)
            )
            | changes
        )
        (tmp_path / 'bam.yaml').write_text(yaml.safe_dump(made))
        result = cli('bam', '--config', tmp_path / 'bam.yaml')
        assert result.returncode == 1 and 'Traceback' not in result.stderr and not (tmp_path / 'bam').exists()
        return result.stderr

    assert 'no heads.safetensors' in bam()
    assert 'train.innr' in bam(train=dict(innr=3))
    assert 'datasets' in bam(datasets=['crema'])
    assert 'give steps or epochs' in bam(train=dict(steps=3, epochs=2))
