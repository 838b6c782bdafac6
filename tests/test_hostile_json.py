"Files of JSON beside models, runs and rows that are damaged or are not ours: each ends in a sentence with its name."

import json

import pytest
from safetensors.torch import load_file, save_file

from omnisapiens_nb.atlas.check import check
from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.registry import WRITERS
from omnisapiens_nb.atlas.reading import SourceError, read_object
from omnisapiens_nb.atlas.store import atlas_id, rewrite_atlas
from omnisapiens_nb.rl.advantages import ESTIMATORS
from omnisapiens_nb.rl.trl_checkpoints import STATE_FILE, load_estimator
from omnisapiens_nb.runs.describe import describe_atlas
from omnisapiens_nb.runs.folders import read_log, read_settings
from omnisapiens_nb.runs.tutorial import data_section
from omnisapiens_nb.sft.bam_training import read_about
from omnisapiens_nb.sft.heads import Heads, load_heads, save_heads
from omnisapiens_nb.studies.tables import read_study
from omnisapiens_nb.studies.words import read_words

BROKEN = dict(
    empty=b'',
    cut=b'{"outputs": {"data/tr',
    list=b'[1, 2]',
    text=b'"manifest"',
    null=b'null',
    not_utf8=b'{"a": "\xff"}',
    utf16='{"outputs": {}}'.encode('utf-16'),
    deep=b'[' * 100_000,
)


@pytest.fixture(scope='module')
def atlas(tmp_path_factory):
    folder = tmp_path_factory.mktemp('json')
    WRITERS['mustard'](folder / 'mustard', 0, rows=20)
    curate(dict(mustard=folder / 'mustard'), folder / 'atlas')
    return folder / 'atlas'


@pytest.fixture
def manifest(atlas):
    "The manifest, to be written over; as it was afterwards."
    file = atlas / 'manifest.json'
    whole = file.read_bytes()
    yield file
    file.write_bytes(whole)


OTHERS = dict(
    extension=(b'{"manifest_version": 3, "name": "another program"}', 'outputs: Field required'),
    files=(b'{"outputs": ["a"]}', 'outputs: Input should be an object'),
    sizes=(b'{"outputs": {"a.parquet": 3}}', 'outputs.a.parquet: Input should be a valid string'),
    sums=(b'{"outputs": {"a.parquet": "3"}}', 'outputs.a.parquet: String should match'),
)


@pytest.mark.parametrize('name', [*BROKEN, *OTHERS])
def test_a_manifest_that_is_none(name, atlas, manifest, tmp_path):
    data, wrong = OTHERS.get(name) or (BROKEN[name], 'the file: ')
    manifest.write_bytes(data)
    with pytest.raises(SourceError, match=f'manifest.json: {wrong}.*If it is the manifest of another program'):
        check(atlas)
    assert len(atlas_id(atlas)) == 16
    with pytest.raises(SourceError, match='manifest.json: (not a readable|holds|has no field)'):
        data_section(atlas)
    if name in BROKEN:
        with pytest.raises(SourceError, match='manifest.json: (not a readable|holds)'):
            rewrite_atlas(atlas, tmp_path / 'again', lambda row: row, {})


def trl_state(folder):
    load_estimator(ESTIMATORS['harpo'](['a']), None, folder)


READERS = {
    'run.json': [lambda folder: read_settings(folder / 'run.json'), read_study],
    'log.jsonl': [read_log],
    STATE_FILE: [trl_state],
    'runs/one.json': [read_words],
}


@pytest.mark.parametrize('name', BROKEN)
@pytest.mark.parametrize('file', READERS)
def test_our_files_that_are_damaged(file, name, tmp_path):
    (tmp_path / 'runs').mkdir()
    for beside in ('run.json', 'rows.json'):
        (tmp_path / beside).write_text('{"tasks": {}}')
    (tmp_path / file).write_bytes(BROKEN[name])
    for read in READERS[file]:
        if (file, name) == ('log.jsonl', 'empty'):
            continue  # A run without steps
        with pytest.raises(SourceError) as told:
            read(tmp_path)
        assert str(tmp_path / file) in str(told.value)


@pytest.mark.parametrize('saved', [{}, dict(kind=1, tasks=3, state=None), dict(kind='HARPO', tasks=['a'], state=[])])
def test_a_state_of_an_estimator_that_is_none(saved, tmp_path):
    (tmp_path / STATE_FILE).write_text(json.dumps(saved))
    with pytest.raises(SourceError, match=STATE_FILE):
        trl_state(tmp_path)


@pytest.mark.parametrize('name', BROKEN)
def test_a_record_of_descriptors(name, atlas, tmp_path):
    record = atlas / 'descriptors.json'
    record.write_bytes(BROKEN[name])
    try:
        with pytest.raises(SourceError, match='descriptors.json: (not a readable|holds)'):
            describe_atlas(atlas, tmp_path / 'out', ['prosody'])
    finally:
        record.unlink()


@pytest.mark.parametrize('note', ['[1]', '{', '[["a"]]', '7', 'null', '[[1, 2]]'])
def test_the_note_in_a_file_of_heads(note, tmp_path):
    save_heads(Heads(8), tmp_path / 'heads.safetensors')
    weights = load_file(tmp_path / 'heads.safetensors')
    save_file(weights, tmp_path / 'heads.safetensors', metadata=dict(classes=note))
    with pytest.raises(SourceError, match='heads.safetensors: '):
        load_heads(tmp_path / 'heads.safetensors', 8)


@pytest.mark.parametrize('note', ['[1]', '{', '{}', '{"inner": 1e9}', 'null'])
def test_the_note_in_a_file_of_adapters(note, tmp_path):
    save_file(Heads(8).state_dict(), tmp_path / 'mine.safetensors', metadata=dict(bam=note))
    with pytest.raises(SourceError, match='mine.safetensors: its note `bam` is damaged'):
        read_about(tmp_path / 'mine.safetensors')


def test_a_field_that_is_missing_is_named(tmp_path):
    (tmp_path / 'run.json').write_text('{"version": 1}')
    with pytest.raises(SourceError, match="run.json: has no field 'sources'"):
        read_object(tmp_path / 'run.json', 'version', 'sources')
    with pytest.raises(SourceError, match='cannot be read'):
        read_object(tmp_path, 'version')
