"""Study E: rows that are in one half alone, answers and gradients as by reading everything anew, the same log whatever
the number of processes and interruptions, logs without a word of the sets; and the committed log, which grows.
"""

import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from transformers import AutoTokenizer

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.datasets import DATASETS
from omnisapiens_nb.atlas.mini.goemotions import comment, write_goemotions
from omnisapiens_nb.atlas.mini.meld import write_meld
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.evaluation.similarity import cosines, minilm
from omnisapiens_nb.rl.shared_prompts import sample_groups
from omnisapiens_nb.runs.train import start_model
from omnisapiens_nb.studies import words
from omnisapiens_nb.studies.shared import registered
from omnisapiens_nb.studies.tables import OLDER_NAMES

SMALL = words.WordsConfig.quick()
LOG = ROOT / 'nbs' / 'results' / 'study_E'
METHODS = tuple(words.METHODS)


@pytest.fixture(scope='module', autouse=True)
def two_methods():
    "Two are enough to see that they are paired and can be stopped; the page runs all of them."
    kept = {name: words.METHODS[name] for name in ('GRPO', 'HARPO released')}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, 'METHODS', kept)
        yield


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    "The four sets in miniature; questions of Social-IQ differ, or all of them would be leaks."
    folder = tmp_path_factory.mktemp('words')
    found = {name: folder / name for name in words.SETS}
    write_meld(found['meld'], dialogues=(6, 2, 3))
    write_mustard(found['mustard'], rows=40)
    write_siq2(found['siq2'], videos=(8, 2, 4))
    write_goemotions(found['goemotions'])
    rng = random.Random(1)
    for file in sorted((found['siq2'] / 'qa').iterdir()):
        rows = [json.loads(line) for line in file.read_text().splitlines() if line.startswith('{')]
        lines = [json.dumps(row | dict(q=comment('why', rng))) + '\n' for row in rows]
        file.write_text(''.join(lines))
    return found


@pytest.fixture(scope='module')
def tiny(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    with registered(words.GoEmotions, words.GOEMOTIONS):
        curate(sources, folder / 'atlas')
        return start_model(folder / 'atlas', folder / 'tiny', family='language-model')


@pytest.fixture(scope='module')
def done(sources, tiny, tmp_path_factory):
    "A study of two seeds, by one process."
    out = tmp_path_factory.mktemp('study') / 'E'
    words.run_words(sources, out, 2, 1, SMALL, str(tiny))
    return out


def without_seconds(value):
    if isinstance(value, dict):
        return {key: without_seconds(item) for key, item in value.items() if key != 'seconds'}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def logs(out):
    files = sorted((out / 'study_E').rglob('*.json'))
    return {file.name: without_seconds(json.loads(file.read_text())) for file in files}


@pytest.fixture(scope='module')
def parts(done):
    "Tokens and rows of the study."
    tokens = words.Tokens(AutoTokenizer.from_pretrained(done / 'model'))
    return tokens, words.material_of(done, SMALL, tokens)


def test_nothing_is_reinforced_or_tested_that_was_fine_tuned(parts):
    _, material = parts
    for task in words.TASKS:
        sides = [{item.group for item in half[task]} for half in (material.sft, material.rl, material.test)]
        assert all(sides) and len(set.union(*sides)) == sum(map(len, sides)), task
    emotion, sentiment = (material.sft[task] for task in ('meld_emotion', 'meld_senti'))
    assert [item.text for item in emotion] == [item.text for item in sentiment]


def test_long_rows_are_left_out_and_counted(done, parts):
    tokens, material = parts
    lengths = [tokens.length(item) for item in material.sft['siq2_choice']]
    bound = sorted(lengths)[len(lengths) // 2] - 1
    short = words.material_of(done, SMALL.model_copy(update=dict(longest=bound)), tokens)
    for task, items in words.items_of(done / 'atlas', 'train').items():
        kept = len(short.sft[task]) + len(short.rl[task])
        assert kept + short.left_out[task] == len(items)
    assert short.left_out['siq2_choice'] > 0 and short.test == material.test


def test_answers_are_those_of_reading_each_row_alone(done, parts):
    tokens, material = parts
    model = words.merged_model(done, done / 'models' / 'seed-0-sft' / 'adapter').float()
    for task, items in material.test.items():
        said = words.answer_items(model, tokens, items, SMALL)
        labels = words.TASKS[task].labels
        begun = words.beginnings(tokens, labels) if labels else {}
        most = max(map(len, begun), default=SMALL.open_tokens)
        for item, answer in zip(items, said, strict=True):
            found = []
            while len(found) < most and tokens.end not in found:
                with torch.no_grad():
                    found.append(model(torch.tensor([tokens.prompt(item) + found])).logits[0, -1].argmax().item())
            labelled = [label for start, label in begun.items() if tuple(found[: len(start)]) == start]
            assert answer == (labelled[0] if labelled else tokens.text(found))


def test_beginnings_tell_labels_apart(parts):
    class Letters:
        end = 'END'

        def answer(self, answer):
            return [*answer, self.end]

    assert words.beginnings(Letters(), ('sad', 'happy')) == {('s',): 'sad', ('h',): 'happy'}
    found = words.beginnings(Letters(), ('a', 'ab', 'ac'))
    assert found == {('a', 'END'): 'a', ('a', 'b'): 'ab', ('a', 'c'): 'ac'}
    assert words._as_answer(None, found, ['a', 'c', 'x']) == 'ac'
    with pytest.raises(SourceError, match='does not tell a, a apart'):
        words.beginnings(Letters(), ('a', 'a'))


def test_the_head_reads_what_it_would(done):
    "A head in float32 changes no logit beyond the rounding of the other kind."
    model = words.base_model(done)
    hidden = torch.randn(3, 5, model.config.hidden_size).bfloat16()[:, -2:]
    head = model.get_output_embeddings()
    expected = torch.nn.functional.linear(hidden.float(), head.weight)
    assert head(hidden).dtype == torch.float32 and torch.allclose(head(hidden), expected)
    single = torch.randn(1, 4, model.config.hidden_size)[:, -1:]
    (given,) = words._contiguous(head, (single,))
    assert given.stride() == torch.empty(given.shape).stride()  # Or torch copies the head for it


def test_gradients_of_a_step_are_those_of_each_rollout_alone(done, parts):
    tokens, material = parts
    model = words.with_lora(words.base_model(done).float(), SMALL, 0)
    items = {task: rows[0] for task, rows in material.rl.items()}
    completions = words.roll_out(model, tokens, items, SMALL, torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    advantages = {task: rng.normal(size=len(rollouts)).tolist() for task, rollouts in completions.items()}
    advantages['mmsd'] = [0.0] * SMALL.rollouts
    words.learn_from(model, tokens, items, completions, advantages)
    weights = words._weights(model)
    found = {name: weight.grad.clone() for name, weight in weights.items()}
    model.zero_grad()
    losses = []
    for task, rollouts in completions.items():
        prompt = tokens.prompt(items[task])
        for rollout, advantage in zip(rollouts, advantages[task]):
            logits = model(torch.tensor([prompt + rollout])).logits[0].float().log_softmax(-1)
            logps = logits[len(prompt) - 1 : -1].gather(-1, torch.tensor(rollout)[:, None])
            losses.append(-advantage * logps.mean())
    torch.stack(losses).mean().backward()
    assert any(weight.grad.abs().max() > 0 for weight in weights.values())
    for name, weight in weights.items():
        assert torch.allclose(found[name], weight.grad, atol=1e-6, rtol=1e-4), name


def test_rewards(parts):
    tokens, material = parts
    items = {task: rows[0] for task, rows in material.rl.items()}
    wrong = dict(meld_emotion='nothing', mmsd='')
    said = {task: wrong.get(task, item.answer) for task, item in items.items()}
    said['siq2_open'] = 'They laugh.'
    completions = {task: [tokens.answer(answer)] for task, answer in said.items()}
    found = dict(zip(completions, words.rewards_of_step(tokens, items, completions)))
    (cosine,) = cosines([tokens.text(completions['siq2_open'][0])], [items['siq2_open'].answer], minilm())
    assert found.pop('siq2_open') == pytest.approx(0.8 * max(cosine, 0), abs=1e-5)
    assert found == {task: 0.0 if task in wrong else pytest.approx(0.8) for task in found}


def test_methods_of_a_seed_are_paired(done):
    steps = words.read_words(done / 'study_E').steps
    first = steps[steps.step == 0].groupby(['seed', 'task'])
    assert (first.reward.nunique() == 1).all() and (first.size() == len(words.METHODS)).all()
    assert steps.groupby(['seed', 'method', 'step']).share.sum().round(3).isin([0, 1]).all()
    adapters = [done / 'models' / f'seed-{seed}-sft' / 'adapter' for seed in (0, 1)]
    assert len({(folder / 'adapter_model.safetensors').read_bytes() for folder in adapters}) == 2


def test_steps_go_through_the_rows(done, parts, tmp_path, monkeypatch):
    tokens, material = parts
    (tmp_path / 'model').symlink_to(done / 'model')
    (tmp_path / 'models' / 'seed-0-sft').parent.mkdir()
    (tmp_path / 'models' / 'seed-0-sft').symlink_to(done / 'models' / 'seed-0-sft')
    seen = []
    monkeypatch.setattr(words, 'sft_step', lambda model, tokens, items: seen.append(items) or {})
    monkeypatch.setattr(words, 'rl_step', lambda model, tokens, items, *more: seen.append(items) or {})
    for job in (words.Job(tmp_path, 5, words.START, SMALL), words.Job(tmp_path, 0, 'GRPO', SMALL)):
        job.folder.mkdir()
        learn = words.train_sft if job.method == words.START else words.train_rl
        learn(job, material, tokens)
    tuned, reinforced = seen[: SMALL.sft_steps], seen[SMALL.sft_steps :]
    for task in words.TASKS:
        expected = words.drawn_items(material.sft[task], 5, 0, SMALL.sft_steps * SMALL.sft_rows)
        assert [item for items in tuned for item in items[task]] == expected
        assert [items[task] for items in reinforced] == words.drawn_items(material.rl[task], 0, 0, SMALL.rl_steps)


@pytest.mark.skipif(os.environ.get('OMNISAPIENS_ALL') != '1', reason='study F does the same; `make test-all` does both')
def test_two_processes_give_the_same(done, sources, tiny, tmp_path):
    "What is there is left as it is; what is missing is made by two processes."
    out = Path(shutil.copytree(done, tmp_path / 'E'))
    for name in ('seed-1-grpo', 'seed-1-harpo_released'):
        (out / 'study_E' / 'runs' / f'{name}.json').unlink()
        shutil.rmtree(out / 'models' / name)
    before = {file: file.stat().st_mtime_ns for file in out.rglob('models/*/adapter/*')}
    words.run_words(sources, out, 2, 2, SMALL, str(tiny))
    assert logs(out) == logs(done)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert 'goemotions' not in DATASETS


@pytest.mark.parametrize('place, after', [('sft_step', 2), ('rl_step', 3), ('as_numbers', 20)])
def test_a_study_that_was_stopped_goes_on(place, after, done, sources, tiny, tmp_path, monkeypatch):
    usual = getattr(words, place)
    left = [after]

    def some(*args):
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedError('stopped')
        return usual(*args)

    monkeypatch.setattr(words, place, some)
    with pytest.raises(SourceError, match='InterruptedError: stopped'):
        words.run_words(sources, tmp_path / 'E', 2, 1, SMALL, str(tiny))
    assert len(logs(tmp_path / 'E')) < len(logs(done))
    monkeypatch.setattr(words, place, usual)
    words.run_words(sources, tmp_path / 'E', 2, 1, SMALL, str(tiny))
    assert logs(tmp_path / 'E') == logs(done)


def test_bag_of_words_reads_words():
    items = [words.Item('mmsd', text, answer, str(k)) for k in range(10) for text, answer in [
        (f'oh great {k}', 'sarcasm'), (f'hello there {k}', 'not sarcasm')]]  # fmt: skip
    assert words.bag_answers(items, items[:2]) == ['sarcasm', 'not sarcasm']
    assert words.constant_answers(items[:-1], items[:3]) == ['sarcasm'] * 3
    choices = ('no idea', 'they are glad', 'a chair', 'blue')
    asked = [words.Item('siq2_choice', f'why {k}', 'ABCD'[k % 4], str(k), choices[-(k % 4) :] + choices[: -(k % 4)])
             for k in range(12)]  # fmt: skip
    right = words.bag_answers(asked, asked)
    assert right == [item.answer for item in asked]
    opened = [words.Item('siq2_open', f'why does {who} cry', f'{who} is sad', who) for who in ('Ann', 'Bob')]
    assert words.bag_answers(opened, [opened[1]._replace(text='what of Bob')]) == ['Bob is sad']


def test_wrong_usage(sources, tmp_path, cli_here):
    def refused(*given):
        result = cli_here('study', *given, '--out', tmp_path / 'E')
        assert result.returncode and not list(tmp_path.glob('E/atlas'))
        return ' '.join(result.stderr.replace('│', ' ').split())

    assert 'error: no folder is given for meld, mustard, siq2, goemotions' in refused('E')
    given = [word for name in words.SETS for word in ('--source', f'{name}={sources[name]}')]
    assert "no set called 'tess'" in refused('E', *given, '--source', 'tess=a')
    assert 'only E takes one' in refused('A', '--model', 'gemma-3-270m')
    assert 'only E and F read folders' in refused('B', '--source', 'meld=a')
    nowhere = [f'{word}.gone' if '=' in word else word for word in given]
    said = refused('E', *nowhere)
    assert said.startswith('error: ') and 'meld.gone' in said and 'Traceback' not in said


def test_the_command(done, sources, tiny, tmp_path, cli_here):
    given = [word for name in words.SETS for word in ('--source', f'{name}={sources[name]}')]
    result = cli_here('study', 'E', '--out', done, '--seeds', 2, '--workers', 1, '--quick', '--model', tiny, *given)
    assert result.returncode == 0, result.stderr
    assert words.read_words(done / 'study_E').run['command'] == 'omnisapiens-nb study E --seeds 2 --model tiny --quick'


def words_in(value):
    "Every text of a log but those that are numbers."
    if isinstance(value, dict):
        return set(value).union(*map(words_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(words_in, value))
    return {value} if isinstance(value, str) and not re.fullmatch(r'[0-9-]*', value) else set()


def check_nothing_is_quoted(folder):
    known = {*words.TASKS, *METHODS, *OLDER_NAMES, words.START, 'bag of words', 'constant'}
    known |= {
        'method',
        'seed',
        'steps',
        'said',
        'seconds',
        'train',
        'test',
        'losses',
        'tasks',
        'reward',
        'share',
        'live',
    }
    known |= {'contribution', 'factor', 'sft', 'rl', 'left_out', 'truth', 'groups'}
    for file in [folder / 'rows.json', *folder.glob('runs/*.json')]:
        assert words_in(json.loads(file.read_text())) <= known, file


def check_whole(folder):
    "Every answer of every run is there, and scores are what other means give."
    log = words.read_words(folder)
    sizes = log.answers.groupby(['method', 'seed', 'task'], dropna=False).size().unstack()
    assert (sizes == [log.tasks[task]['test'] for task in sizes]).all(axis=None)
    for file in folder.glob('runs/*.json'):
        run = json.loads(file.read_text())
        run['method'] = OLDER_NAMES.get(run['method'], run['method'])
        seed = -1 if run['seed'] is None else run['seed']
        own = log.answers[(log.answers.method == run['method']) & (log.answers.seed.fillna(-1) == seed)]
        for task, said in run['said'].items():
            truth = log.tasks[task]['truth']
            if truth is None:
                expected = np.clip(np.array(said) / 1000, 0, None).mean()
            else:
                expected = np.mean([a == b for a, b in zip(said, truth, strict=True)])
            assert own[own.task == task].score.mean() == pytest.approx(expected, abs=1e-9)
        if run['method'] in METHODS:
            assert len(run['steps']) == log.run['config']['rl_steps']


def test_logs_are_whole_and_quote_nothing(done):
    check_nothing_is_quoted(done / 'study_E')
    check_whole(done / 'study_E')
    assert words_in(dict(a=['0123-', 'a word'])) == {'a', 'a word'}


def test_the_committed_log():
    check_nothing_is_quoted(LOG)
    check_whole(LOG)
    run = json.loads((LOG / 'run.json').read_text())
    assert run['config'] == words.WordsConfig().model_dump() and run['command'].endswith('--model gemma-3-270m')


def test_sampling_after_what_is_shared_draws_the_same(done, parts):
    tokens, material = parts
    model = words.base_model(done).float()
    item = material.rl['goemotions'][0]
    limits = words.Limits(3, [tokens.end])
    ways = []
    for prompt, shared in ((tokens.prompt(item), ()), (tokens.own(item), tokens.shared['goemotions'])):
        ways.append(sample_groups(model, [prompt], 6, limits, torch.Generator().manual_seed(0), shared))
    assert ways[0] == ways[1]
