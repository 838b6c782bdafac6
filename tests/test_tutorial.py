"""The whole path, as `make tutorial` runs it, killed in the middle and started again; and what the tiny model has
learnt. Reinforcement takes half the tutorial's steps, and all of them with OMNISAPIENS_ALL=1.
"""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from omnisapiens_nb.evaluation.evaluate import MAJORITY, score_models
from omnisapiens_nb.evaluation.scores import compare_answers
from omnisapiens_nb.evaluation.seeds import reward_rise_of_log
from omnisapiens_nb.runs.folders import read_log
from omnisapiens_nb.runs.tutorial import TutorialConfig

FEWER = [] if os.environ.get('OMNISAPIENS_ALL') == '1' else ['--rl-steps', str(TutorialConfig().rl_steps // 2)]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "A finished run of the tutorial, which was killed once during the warm start."
    out = tmp_path_factory.mktemp('tutorial') / 'run'
    command = [sys.executable, '-m', 'omnisapiens_nb.cli', 'tutorial', '--out', str(out), *FEWER]
    environment = os.environ | dict(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(out / 'sft.partial' / 'state.pt', first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    atlas = (out / 'atlas' / 'manifest.json').stat().st_mtime_ns
    second = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert (out / 'atlas' / 'manifest.json').stat().st_mtime_ns == atlas
    assert second.stdout.strip() == f'Report: {out / "report.html"}'
    return out


def wait_for(path, process, seconds=300):
    for _ in range(seconds * 5):
        if path.exists():
            return
        assert process.poll() is None, 'the run ended before its checkpoint'
        time.sleep(0.2)
    raise AssertionError(f'no {path} after {seconds} s')


@pytest.fixture(scope='module')
def scored(run):
    return score_models(run / 'atlas', {p.stem: p for p in sorted((run / 'predictions').glob('*.jsonl'))})


MODALITIES = [('mmsd', 'text'), ('cremad', 'audio'), ('siq2', 'video')]


@pytest.mark.parametrize('dataset, modality', MODALITIES)
def test_warm_start_beats_the_majority_answer(scored, dataset, modality):
    assert compare_answers(scored.answers['sft'][dataset], scored.answers[MAJORITY][dataset]).low > 0


@pytest.mark.parametrize('dataset, modality', MODALITIES)
def test_without_its_modality_it_falls_to_the_majority_answer(scored, dataset, modality):
    blanked = scored.answers[f'sft_without_{modality}'][dataset]
    assert compare_answers(scored.answers['sft'][dataset], blanked).low > 0
    assert abs(compare_answers(blanked, scored.answers[MAJORITY][dataset]).value) < 0.15


def test_policy_has_room_and_is_above_chance_on_every_task(scored):
    for dataset, score in scored.scores['sft'].items():
        assert scored.scores[MAJORITY][dataset].value < score.value < 0.99, dataset


def test_reward_rises_and_the_control_does_not(run):
    logs = {m: read_log(run / m) for m in ('GRPO', 'HARPO', 'control')}
    late = {
        m: np.array([e['reward'] for e in log[len(log) // 2 :]]) for m, log in logs.items()
    }  # the same prompts for all
    assert (late['GRPO'] - late['control']).mean() > 0.03 and (late['HARPO'] - late['control']).mean() > 0.03
    rise = {m: reward_rise_of_log(log) for m, log in logs.items()}
    assert rise['GRPO'] > 0 and rise['HARPO'] > 0 and rise['control'] < 0.01, rise


def test_methods_start_alike_and_shares_sum_to_one(run):
    logs = {m: read_log(run / m) for m in ('GRPO', 'HARPO')}
    assert logs['GRPO'][0]['reward'] == logs['HARPO'][0]['reward']
    for log in logs.values():
        for entry in log:
            assert sum(t['share'] for t in entry['tasks'].values()) == pytest.approx(1) or not any(
                t['live'] for t in entry['tasks'].values()
            )


def test_report_is_one_file_without_outside_addresses(run):
    page = (run / 'report.html').read_text(encoding='utf-8')
    assert not re.search(r'(src|href)="(?!#)', page)
    for title in (
        'Data',
        'Scores',
        'What RL changed',
        'Does it look and listen?',
        'Reward over steps',
        'share of the update',
        'Examples',
    ):
        assert title in page
    assert page.split('<h2>Examples</h2>')[1].count('<div class="example">') == 3 * 4


def test_scores_are_written(run):
    scores = pd.read_csv(run / 'scores.csv')
    assert set(scores.model) == {
        'before SFT',
        'after SFT',
        'after GRPO',
        'after HARPO',
        'control',
        'majority',
        'best constant',
    }
    assert (
        scores.value.between(0, 1).all() and (scores.low <= scores.value).all() and (scores.value <= scores.high).all()
    )


def test_a_second_call_does_nothing_and_other_settings_are_refused(run, cli_here, mini_mustard):
    before = {p: p.stat().st_mtime_ns for p in run.rglob('*') if p.is_file()}
    assert cli_here('tutorial', '--out', run, *FEWER).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob('*') if p.is_file()} == before
    result = cli_here('tutorial', '--out', run, *FEWER, '--source', f'mustard={mini_mustard}')
    assert result.returncode == 1 and 'begun with' in result.stderr


@pytest.fixture
def mini_mustard(run):
    return run / 'sources' / 'mustard'
