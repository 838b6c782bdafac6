"Files with the released columns and nothing else: checked, converted to the other form and back, answered and scored."

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.store import open_atlas

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
    write_cremad(folder / 'cremad', actors=14), write_mustard(folder / 'mustard')
    ours = curate({name: folder / name for name in ('cremad', 'mustard')}, folder / 'ours').folder
    (folder / 'released' / 'data').mkdir(parents=True)
    for shard in (ours / 'data').iterdir():
        pq.write_table(pq.read_table(shard, columns=COLUMNS), folder / 'released' / 'data' / shard.name)
    return ours, folder / 'released'


def test_it_passes_the_check(cli, forms):
    result = cli('check', forms[1])
    assert result.returncode == 0 and '0 problems' in result.stdout, result.stdout + result.stderr


def test_a_damaged_one_does_not(cli, forms, tmp_path):
    table = pq.read_table(next((forms[1] / 'data').glob('test-*'))).to_pylist()
    table[0] |= dict(answer='joy', class_label='joy')
    table[1] |= dict(
        problem=table[1]['problem'].replace('<audio>\n', '').removeprefix('<video>\n') + ' ',
        modality_signature='text_video',
    )
    pq.write_table(
        pa.Table.from_pylist(table, pq.read_schema(next((forms[1] / 'data').glob('test-*')))),
        tmp_path / 'test-00000-of-00001.parquet',
    )
    result = cli('check', tmp_path / 'test-00000-of-00001.parquet')
    assert result.returncode == 1 and 'no label of its dataset' in result.stdout and 'signature' in result.stdout


def test_it_is_scored_as_ours_is(cli, forms, tmp_path):
    scores = {}
    for name, folder in zip(('ours', 'released'), forms):
        store = open_atlas(folder, 'test')
        columns = store.columns('id', 'task', 'dataset', 'options')
        lines = [
            json.dumps(dict(id=i, response=f'\\boxed{{{o[n % 2]}}}'))
            for n, (i, o) in enumerate(zip(columns['id'], columns['options']))
        ]
        (tmp_path / f'{name}.jsonl').write_text('\n'.join(lines) + '\n')
        result = cli(
            'evaluate', '--atlas', folder, '--predictions', tmp_path / f'{name}.jsonl', '--out', tmp_path / name
        )
        assert result.returncode == 0, result.stderr
        assert f'{len(lines)} of {len(lines)} rows' in result.stdout
        scores[name] = pd.read_csv(tmp_path / name / 'scores.csv').query('model == @name').set_index('dataset').value
    assert len(scores['ours']) == 2 and scores['ours'].equals(scores['released'])


def test_there_and_back(cli, forms, tmp_path):
    "Parquet to JSON Lines with one tar, and back; what is made up for a released file stays what it was."
    for args in (
        ('convert', forms[1], '--out', tmp_path / 'paths', '--tar'),
        ('convert', tmp_path / 'paths', '--out', tmp_path / 'back'),
    ):
        result = cli(*args)
        assert result.returncode == 0, result.stderr
    assert not (tmp_path / 'paths' / 'media').exists() and (tmp_path / 'paths' / 'media.tar').is_file()
    for split in ('train', 'test'):
        assert list(open_atlas(tmp_path / 'back', split)) == list(open_atlas(forms[1], split))
