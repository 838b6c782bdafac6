"Files with the released columns and nothing else: checked, converted to the other form and back, answered and scored."

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl.loop import RLConfig
from omnisapiens_nb.runs.predict import run_predict
from omnisapiens_nb.runs.recipes import RLRecipe
from omnisapiens_nb.runs.train import run_rl, start_model
from omnisapiens_nb.sft.processor import FORM_REQUEST, QWEN_SYSTEM, OmniProcessor

COLUMNS = [
    'problem',
    'answer',
    'images',
    'videos',
    'audios',
    'dataset',
    'modality_signature',
    'ext_video_feats',
    'ext_audio_feats',
    'task',
    'class_label',
]


@pytest.fixture(scope='module')
def forms(tmp_path_factory):
    "An Atlas of ours, and the same rows with the released columns only."
    folder = tmp_path_factory.mktemp('forms')
    write_cremad(folder / 'cremad', actors=14)
    write_mustard(folder / 'mustard')
    ours = curate({name: folder / name for name in ('cremad', 'mustard')}, folder / 'ours').folder
    (folder / 'released' / 'data').mkdir(parents=True)
    for shard in (ours / 'data').iterdir():
        pq.write_table(pq.read_table(shard, columns=COLUMNS), folder / 'released' / 'data' / shard.name)
    return ours, folder / 'released'


def test_it_passes_the_check(cli_here, forms):
    _, released = forms
    result = cli_here('check', released)
    assert result.returncode == 0 and '0 problems' in result.stdout, result.stdout + result.stderr


def test_a_damaged_one_does_not(cli_here, forms, tmp_path):
    _, released = forms
    shard = next((released / 'data').glob('test-*'))
    first, second, *rest = pq.read_table(shard).to_pylist()
    first |= dict(answer='joy', class_label='joy')
    without_tags = second['problem'].replace('<audio>\n', '').removeprefix('<video>\n')
    second |= dict(problem=without_tags + ' ', modality_signature='text_video')
    damaged = tmp_path / 'test-00000-of-00001.parquet'
    pq.write_table(pa.Table.from_pylist([first, second, *rest], pq.read_schema(shard)), damaged)
    result = cli_here('check', damaged)
    assert result.returncode == 1
    assert 'no label of its dataset' in result.stdout and 'signature' in result.stdout


def answers(folder):
    "Lines of predictions for the test split: the first option for one row, the second for the next."
    columns = open_atlas(folder, 'test').columns('id', 'options')
    lines = []
    for number, (row_id, options) in enumerate(zip(columns['id'], columns['options'])):
        response = f'\\boxed{{{options[number % 2]}}}'
        lines.append(json.dumps(dict(id=row_id, response=response)))
    return lines


def test_it_is_scored_as_ours_is(cli_here, forms, tmp_path):
    scores = {}
    for name, folder in zip(('ours', 'released'), forms):
        lines = answers(folder)
        predictions = tmp_path / f'{name}.jsonl'
        predictions.write_text('\n'.join(lines) + '\n')
        result = cli_here('evaluate', '--atlas', folder, '--predictions', predictions, '--out', tmp_path / name)
        assert result.returncode == 0, result.stderr
        assert f'{len(lines)} of {len(lines)} rows' in result.stdout
        table = pd.read_csv(tmp_path / name / 'scores.csv')
        scores[name] = table[table.model == name].set_index('dataset').value
    assert len(scores['ours']) == 2
    assert scores['ours'].equals(scores['released'])


def test_there_and_back(cli, forms, tmp_path):
    "Parquet to JSON Lines with one tar, and back; what is made up for a released file stays what it was."
    _, released = forms
    paths = tmp_path / 'paths'
    back = tmp_path / 'back'
    back.mkdir()
    for args in ((released, '--out', paths, '--tar'), (paths, '--out', back)):
        result = cli('convert', *args)
        assert result.returncode == 0, result.stderr
    assert not (paths / 'media').exists()
    assert (paths / 'media.tar').is_file()
    for split in ('train', 'test'):
        assert list(open_atlas(back, split)) == list(open_atlas(released, split))


def prompts(monkeypatch):
    "Prompts that are encoded from here on."
    seen = []
    encode = OmniProcessor.encode

    def noted(self, row, blank=''):
        example = encode(self, row, blank)
        seen.append((example, self.tokenizer.decode(example.prompt)))
        return example

    monkeypatch.setattr(OmniProcessor, 'encode', noted)
    return seen


@pytest.fixture(scope='module')
def start(forms, tmp_path_factory):
    ours, _ = forms
    return str(start_model(ours, tmp_path_factory.mktemp('start') / 'start'))


def test_it_is_asked_as_in_training(forms, start, tmp_path, monkeypatch, beside_release):
    "With sound Qwen's own turn comes first; the request follows every prompt without a blank; media are cut."
    _, released = forms
    seen = prompts(monkeypatch)
    run_predict(start, released, 'test', tmp_path / 'p.jsonl', rows=2, max_new_tokens=2, profile='released')
    problems = {row['problem'].splitlines()[-1] for row in open_atlas(released, 'test')}
    assert len(seen) >= 4
    for example, text in seen:
        assert text.count(FORM_REQUEST) == 1
        question = text.split(FORM_REQUEST)[0].splitlines()[-1]
        assert any(question.endswith(problem) for problem in problems)
        assert text.startswith('<|im_start|>system\n' + QWEN_SYSTEM) == bool(example.mels)
        assert all(grid == [2, 28, 28] for grid in example.grids)
    assert any(example.mels for example, _ in seen)
    why = 'the request is in our words, or from the file of `--format-prompt`; place, order and system turn are theirs'
    beside_release('Prompts under the profile `released`', f'{len(seen)} prompts of `predict`', None, why=why)


def test_the_request_may_come_from_a_file(forms, start, tmp_path, monkeypatch):
    _, released = forms
    (tmp_path / 'default.jinja').write_text('{{ content }}Think. Then box it.')
    seen = prompts(monkeypatch)
    file = tmp_path / 'default.jinja'
    run_predict(start, released, 'test', tmp_path / 'p.jsonl', 1, max_new_tokens=2, format_prompt=file)
    for _, text in seen:
        assert (
            'Think. Then box it.<|im_end|>' in text and QWEN_SYSTEM not in text
        )  # The profile is the model's own, ours
    file.write_text('{% if content %}{{ content }}{% endif %}')
    with pytest.raises(SourceError, match='default.jinja'):
        run_predict(start, released, 'test', tmp_path / 'q.jsonl', 1, format_prompt=file)


def test_a_policy_is_asked_as_it_was_trained(forms, start, tmp_path, monkeypatch):
    "Reinforced under a profile, a model keeps it in its folder, and `predict` asks under it."
    ours, released = forms
    shortest = RLConfig(estimator='harpo_released', steps=1, prompts=2)
    recipe = RLRecipe(atlas=ours, out=tmp_path / 'rl', model=start, train=shortest, profile='released')
    made = run_rl(recipe)
    seen = prompts(monkeypatch)
    run_predict(str(made), released, 'test', tmp_path / 'p.jsonl', 1, max_new_tokens=2)
    assert seen and all(FORM_REQUEST in text for _, text in seen)
    seen.clear()
    run_predict(str(made), released, 'test', tmp_path / 'q.jsonl', 1, max_new_tokens=2, profile='ours')
    assert seen and not any(FORM_REQUEST in text for _, text in seen)
