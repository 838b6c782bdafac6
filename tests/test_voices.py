"""Study F: parts that tear no word and no speaker apart, logs that name nobody, the same tables whatever the number of
processes and interruptions; and EmoDB's real files, where they are there, counted by other means.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from sklearn.metrics import balanced_accuracy_score, f1_score

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.datasets import DATASETS
from omnisapiens_nb.atlas.media import write_wav
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.emodb import write_emodb
from omnisapiens_nb.atlas.mini.tess import write_tess
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.sources.registry import ADAPTERS
from omnisapiens_nb.atlas.store import open_atlas, open_splits
from omnisapiens_nb.evaluation.metrics import balanced_accuracy, weighted_f1
from omnisapiens_nb.studies import voices
from omnisapiens_nb.studies.shared import registered
from omnisapiens_nb.studies.tables import read_study

SMALL = voices.VoicesConfig(folds=2, base_steps=2, classify_steps=2, bam_steps=2, extractors=('prosody',))
LOG = ROOT / 'nbs' / 'results' / 'study_F'


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    "The three sets in miniature."
    folder = tmp_path_factory.mktemp('voices')
    write_tess(folder / 'tess', words=10)
    for path in (folder / 'tess').rglob('*.wav'):
        if not set(path.stem.split('_')) & {'chair', 'door', 'keep'}:  # Two words to train on, one to test
            path.unlink()
    write_cremad(folder / 'cremad', actors=2)
    write_emodb(folder / 'emodb')
    return {key: folder / key for key in voices.SETS}


@pytest.fixture(scope='module')
def done(sources, tmp_path_factory, cli_here):
    "A study of one seed, by the command and one process."
    out = tmp_path_factory.mktemp('study') / 'F'
    given = [word for key, folder in sources.items() for word in ('--source', f'{key}={folder}')]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(voices.VoicesConfig, 'quick', classmethod(lambda cls: SMALL))
        result = cli_here('study', 'F', '--out', out, '--seeds', 1, '--workers', 1, '--quick', *given)
    assert result.returncode == 0, result.stderr
    return out


def tables(out):
    return {file.name: file.read_bytes() for file in (out / 'study_F').glob('*.csv.gz')}


def test_nothing_is_tested_that_was_trained_on(done):
    tested = Counter()
    for part in sorted((done / 'parts').iterdir()):
        train, test = (open_atlas(part, split).columns('id', 'group', 'dataset') for split in ('train', 'test'))
        assert not set(train['group']) & set(test['group']) and not set(train['id']) & set(test['id']), part
        assert len(set(train['dataset'])) == 1
        if part.name[-1].isdigit():
            tested.update(test['group'])
            assert set(test['dataset']) == set(train['dataset']) == {'emodb'}
    of_speaker = Counter()
    for store in open_splits(done / 'atlases' / 'emodb').values():
        of_speaker.update(store.columns('group')['group'])
    assert tested == of_speaker  # Each speaker's clips are tested once


def test_a_study_that_was_stopped_goes_on_in_two_processes(done, sources, tmp_path, monkeypatch):
    usual = voices.train_bam
    left = [2]

    def twice(*args):
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedError('stopped')
        return usual(*args)

    out = tmp_path / 'F'
    monkeypatch.setattr(voices, 'train_bam', twice)
    with pytest.raises(SourceError, match='InterruptedError: stopped'):
        voices.run_voices(sources, out, 1, 1, SMALL)
    assert list(out.glob('answers/prosody/*-seed-0.csv'))
    monkeypatch.setattr(voices, 'train_bam', usual)
    voices.run_voices(sources, out, 1, 2, SMALL)
    assert tables(out) == tables(done)
    assert 'emodb' not in ADAPTERS and 'emodb' not in DATASETS


def test_other_bounds_are_another_study(done, sources):
    with pytest.raises(SourceError, match='base_steps 2, now 3'):
        voices.run_voices(sources, done, 1, 1, SMALL.model_copy(update=dict(base_steps=3)))


def test_the_log_says_by_which_command(done):
    manifest = json.loads((done / 'study_F' / 'run.json').read_text(encoding='utf-8'))
    assert manifest['command'] == 'omnisapiens-nb study F --seeds 1 --workers 1 --quick'


@pytest.mark.parametrize(
    'given, words',
    [
        (['F'], 'no folder is given for tess, emodb, cremad'),
        (['F', '--source', 'tess=a', '--source', 'emodb=b', '--source', 'cremad=c', '--source', 'meld=d'], "'meld'"),
        (['F', '--source', 'tess'], 'is not NAME=FOLDER'),
        (['D', '--source', 'tess=a'], 'only E and F read folders of yours'),
        (['G'], 'choose from A, B, C, D, E, F'),
    ],
)
def test_wrong_usage(given, words, tmp_path, cli_here):
    result = cli_here('study', *given, '--out', tmp_path / 'F')
    assert result.returncode and words in result.stderr and not (tmp_path / 'F').exists()


def test_a_clip_without_a_pitch(sources, tmp_path):
    "It has no prosody: logistic regression imputes, adapters add nothing to it, and it is answered all the same."
    own = tmp_path / 'emodb'
    write_emodb(own, seed=1)
    for name in ('03a01Wa', '06a01Ta'):
        (own / f'{name}.wav').write_bytes(write_wav(np.random.default_rng(0).normal(size=16_000) * 0.1))
    out = voices.run_voices(sources | dict(emodb=own), tmp_path / 'F', 1, 1, SMALL)
    _, logs = read_study(out)
    found = logs['answers'].groupby(['part', 'dataset', 'model']).size().unstack()
    assert found.notna().all(axis=None) and (found.nunique(axis=1) == 1).all()
    numbers = voices.load_file(tmp_path / 'F' / 'descriptors' / 'prosody.safetensors')
    assert 'emodb/03a01Wa' not in numbers and 'emodb/03a01Wb' in numbers


def test_logistic_sees_its_training_rows_alone():
    "What stands beside a row when it is asked changes no answer, and no group is on both sides of the inner cut."
    rng = np.random.default_rng(0)
    labels = ['sad', 'happy'] * 20
    groups = [str(i // 5) for i in range(40)]
    x = rng.normal(size=(40, 3)) + (np.array(labels) == 'sad')[:, None]
    search = voices.fit_logistic(x, labels, groups)
    options = [['sad', 'happy']] * 10
    alone = voices.likeliest(search, x[:10], options)
    beside = voices.likeliest(search, np.concatenate([x[:10], 1e6 + x[:10]]), options * 2)
    assert beside[:10] == alone
    for fitted, held in search.cv.split(x, labels, groups):
        assert not {groups[i] for i in fitted} & {groups[i] for i in held}


@pytest.fixture(scope='module')
def log():
    return read_study(LOG)


def test_the_log_names_nobody(log):
    _, logs = log
    for table in logs.values():
        texts = {text for column in table.select_dtypes(exclude='number') for text in table[column].unique()}
        assert not [text for text in texts if '/' in text or ':' in text or '.' in text]
    assert pd.api.types.is_integer_dtype(logs['answers'].group)


def test_the_log_is_of_every_row(log):
    run, logs = log
    answers = logs['answers']
    sizes = answers.groupby(['part', 'dataset', 'model', 'seed']).size()
    assert (sizes.groupby(level=['part', 'dataset']).nunique() == 1).all()
    seeds = answers.groupby('model').seed.nunique()
    trained = seeds[[name for name in seeds.index if name == 'SFT' or name.startswith('BAM')]]
    assert (trained == run['seeds']).all() and len(trained) == 2 + len(voices.variants(run['config']['extractors']))
    folds = answers[answers.part.str.match(r'emodb-\d') & (answers.model == 'SFT') & (answers.seed == 0)]
    assert len(folds) == run['sets']['emodb']['kept']
    assert (folds.groupby('group').part.nunique() == 1).all()


def test_metrics_of_the_log_by_other_means(log):
    answers = log[1]['answers']
    for _, part in answers.groupby(['part', 'dataset', 'model', 'seed']):
        truth, said = part.truth.tolist(), part.said.tolist()
        labels = sorted(set(truth))
        expected = f1_score(truth, said, labels=labels, average='weighted', zero_division=0)
        assert weighted_f1(truth, said) == pytest.approx(expected, abs=1e-12)
        if set(said) <= set(truth):
            assert balanced_accuracy(truth, said) == pytest.approx(balanced_accuracy_score(truth, said), abs=1e-12)


def test_real_files_of_emodb(shared, tmp_path):
    folder = shared / 'data' / 'emodb'
    if not folder.is_dir():
        pytest.skip(f'no recordings at {folder}')
    names = [path.stem for path in folder.rglob('*.wav')]
    letters = Counter(name[5] for name in names)
    with registered(voices.EmoDB, voices.EMODB):
        result = curate(dict(emodb=folder), tmp_path / 'emodb')
    known = {letter: count for letter, count in letters.items() if letter in 'WFNT'}
    assert result.counts['emodb']['kept'] == sum(known.values())
    assert result.counts['emodb']['rejected'] == len(names) - sum(known.values())
    found = Counter()
    people = set()
    for store in open_splits(Path(result.folder)).values():
        columns = store.columns('class_label', 'group', 'person')
        assert columns['group'] == columns['person']
        found.update(columns['class_label'])
        people |= set(columns['group'])
    words = dict(W='anger', F='happy', N='neutral', T='sad')
    assert found == {words[letter]: count for letter, count in known.items()}
    assert people == {f'emodb:{name[:2]}' for name in names}
