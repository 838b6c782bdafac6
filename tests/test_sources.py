"All thirteen mini sources through the command line, the check, `datasets`, and a reader that knows the released schema only."

import json
from collections import Counter

import datasets
import pyarrow.parquet as pq
import pytest

from omnisapiens_nb.atlas.datasets import ATLAS_KEYS

RELEASED = dict(
    problem='string',
    answer='string',
    images='list<element: binary>',
    videos='list<element: binary>',
    audios='list<element: binary>',
    dataset='string',
    modality_signature='string',
    ext_video_feats='list<element: binary>',
    ext_audio_feats='list<element: binary>',
    task='string',
    class_label='string',
)


@pytest.fixture(scope='module')
def atlas(cli, tmp_path_factory):
    folder = tmp_path_factory.mktemp('all')
    assert cli('mini', '--out', folder / 'sources').returncode == 0
    sources = [a for d in sorted((folder / 'sources').iterdir()) for a in ('--source', f'{d.name}={d}')]
    result = cli('curate', *sources, '--out', folder / 'atlas')
    assert result.returncode == 0, result.stderr
    return folder / 'atlas'


@pytest.fixture(scope='module')
def shards(atlas):
    return sorted((atlas / 'data').glob('*.parquet'))


def test_nothing_is_lost(atlas):
    counts = json.loads((atlas / 'manifest.json').read_text())['counts']
    assert set(counts) == set(ATLAS_KEYS) and len(counts) == 16
    assert all(c['read'] == c['kept'] + c['rejected'] and c['kept'] > 0 for c in counts.values())
    rejected = Counter(
        json.loads(line)['dataset'] for line in (atlas / 'rejected.jsonl').read_text(encoding='utf-8').splitlines()
    )
    assert rejected == {k: c['rejected'] for k, c in counts.items() if c['rejected']}


def test_check_finds_no_problem(cli, atlas):
    result = cli('check', atlas)
    assert result.returncode == 0 and '0 problems' in result.stdout, result.stdout


def test_datasets_opens_it(atlas, shards, tmp_path):
    loaded = datasets.load_dataset(str(atlas), cache_dir=str(tmp_path))
    assert {s: len(d) for s, d in loaded.items()} == Counter(
        {s.name.split('-')[0]: pq.read_metadata(s).num_rows for s in shards}
    )


def test_released_columns_come_first_and_hold_what_they_say(shards):
    for shard in shards:
        schema = pq.read_schema(shard)
        assert {f.name: str(f.type) for f in list(schema)[: len(RELEASED)]} == RELEASED
        assert schema.names[: len(RELEASED)] == list(RELEASED)
        for row in pq.read_table(shard, columns=list(RELEASED)).to_pylist():
            assert row['answer'] and row['problem']
            if row['task'].endswith('_cls'):
                assert row['class_label'] == row['answer'] and row['answer'] in row['problem']
            for tag, column in (('<video>', 'videos'), ('<audio>', 'audios')):
                assert row['problem'].split('\n').count(tag) == len(row[column])


def test_no_trace_or_prompt_names_the_cause_of_ptsd(shards):
    for shard in shards:
        for row in pq.read_table(shard, columns=['dataset', 'id', 'problem', 'cues']).to_pylist():
            if row['dataset'] == 'ptsd_in_the_wild':
                assert not {'war', 'rape', 'accident'} & set(
                    (row['id'] + ' ' + row['problem']).lower().replace('/', ' ').replace('_', ' ').split()
                )
