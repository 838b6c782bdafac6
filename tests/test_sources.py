"All thirteen mini sources through the command line, the check, `datasets` and a plain reader; what adapters import."

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from importlib.util import resolve_name

import datasets
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from omnisapiens_nb.atlas.datasets import ATLAS_KEYS, DATASETS
from omnisapiens_nb.atlas.schema import Reject
from omnisapiens_nb.atlas.sources.registry import ADAPTERS

ATLAS = ROOT / 'omnisapiens_nb' / 'atlas'
MINI = 'omnisapiens_nb.atlas.mini'
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
def atlas(cli, every_source, tmp_path_factory):
    atlas = tmp_path_factory.mktemp('all') / 'atlas'
    arguments = []
    for source in sorted(every_source.iterdir()):
        arguments += ['--source', f'{source.name}={source}']
    result = cli('curate', *arguments, '--out', atlas)
    assert result.returncode == 0, result.stderr
    return atlas


@pytest.fixture(scope='module')
def shards(atlas):
    return sorted((atlas / 'data').glob('*.parquet'))


def test_nothing_is_lost(atlas):
    counts = json.loads((atlas / 'manifest.json').read_text())['counts']
    assert set(counts) == set(ATLAS_KEYS) and len(counts) == 16
    assert all(c['read'] == c['kept'] + c['rejected'] and c['kept'] > 0 for c in counts.values())
    lines = (atlas / 'rejected.jsonl').read_text(encoding='utf-8').splitlines()
    rejected = Counter(json.loads(line)['dataset'] for line in lines)
    assert rejected == {k: c['rejected'] for k, c in counts.items() if c['rejected']}


def test_check_finds_no_problem(cli, atlas):
    result = cli('check', atlas)
    assert result.returncode == 0 and '0 problems' in result.stdout, result.stdout


def test_datasets_opens_it(atlas, shards, tmp_path):
    loaded = datasets.load_dataset(str(atlas), cache_dir=str(tmp_path))
    rows = {shard.name.split('-')[0]: pq.read_metadata(shard).num_rows for shard in shards}
    assert {split: len(data) for split, data in loaded.items()} == rows


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
                words = re.split(r'[\s/_]+', f'{row["id"]} {row["problem"]}'.lower())
                assert not {'war', 'rape', 'accident'} & set(words)


def imported(path):
    "Full names of what a module imports, anywhere in it."
    package = '.'.join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        names = [alias.name for alias in getattr(node, 'names', []) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.Import):
            yield from names
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name('.' * node.level + (node.module or ''), package)
            yield from (f'{module}.{name}' for name in names)


@pytest.mark.parametrize(
    'path', [ATLAS / 'adapters.py', *sorted((ATLAS / 'sources').glob('*.py'))], ids=lambda p: p.stem
)
def test_no_adapter_imports_the_generator(path):
    assert not [name for name in imported(path) if f'{name}.'.startswith(f'{MINI}.')]


def test_no_adapter_needs_the_generator():
    code = 'import sys, omnisapiens_nb.atlas.sources.registry; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if name.startswith(MINI)]


def outcome(adapter, record, dataset):
    "The row of a record, or why there is none."
    try:
        return adapter.row(record, dataset)
    except Reject as reason:
        return str(reason)


CHOICES = [(source, {}) for source in ADAPTERS]
CHOICES += [
    (source, {key: short})
    for source, kind in ADAPTERS.items()
    for key, choices in kind.RULES.items()
    for short in choices
]


@pytest.mark.parametrize('source, rules', CHOICES, ids=lambda x: x if isinstance(x, str) else '-'.join(x.values()))
def test_a_row_needs_nothing_but_its_record(every_source, held_out_sources, source, rules):
    "An adapter that has read no records makes the same rows of another's."
    datasets = [dataset for dataset in DATASETS.values() if dataset.source == source]
    folder = (held_out_sources if datasets[0].held_out else every_source) / source
    reader = ADAPTERS[source](folder, rules=rules)
    fresh = ADAPTERS[source](folder, rules=rules)
    records = [record for record in reader.records() if not record.fault]
    expected = [outcome(reader, record, dataset) for record in records for dataset in datasets]
    found = [outcome(fresh, record, dataset) for record in records for dataset in datasets]
    assert expected and found == expected


NAMES_OF_0_1_0 = (
    'BEHAVIOUR WHO FRAMES EVENTS SURPRISE WELCOME UNWELCOME PRAISE BLAME EMOTION_OF MELD_COLUMNS MELD_FILES SPEAKERS '
    'MELD_WEIGHTS CREMAD_CODES CREMAD_SENTENCES FEELS HANDS SIQ2_QUESTIONS WRITERS voice_cues face_cues voice face '
    'utterance remark write_lines write_table write_file write_meld write_cremad write_siq2 write_mustard write_mini'
)


def test_names_of_version_0_1_0_lead_on():
    "They stood in one module; the package in its place imports nothing before it is asked for one."
    code = (
        'import sys, omnisapiens_nb.atlas.mini as mini\n'
        'before = [name for name in sys.modules if name.startswith(mini.__name__ + ".")]\n'
        'from omnisapiens_nb.atlas.mini import meld, voice\n'
        f'found = [getattr(mini, name) for name in {NAMES_OF_0_1_0.split()}]\n'
        'print(before, len(found), voice.__module__, meld.__name__, *mini.WRITERS, hasattr(mini, "shoe"))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    four = 'cremad meld mustard siq2'.split()
    empty, count, voice, meld, *writers, has_shoe = done.stdout.split()
    assert (empty, count, voice, meld) == ('[]', '34', f'{MINI}.behaviour', f'{MINI}.meld')
    assert sorted(writers) == four and has_shoe == 'False'
