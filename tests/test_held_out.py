"""The five held-out sets: mini folders through the command line, the check and `datasets`; AV-ASD's adapter on a real
excerpt of its test table."""

import csv
import json
from collections import Counter

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score

from omnisapiens_nb.atlas.curate import curate, finish_row
from omnisapiens_nb.atlas.datasets import DATASETS
from omnisapiens_nb.atlas.leakage import Leakage
from omnisapiens_nb.atlas.mini.registry import HELD_OUT_WRITERS, WRITERS
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.schema import Reject, Rejected, row_faults
from omnisapiens_nb.atlas.sources.avasd import AvAsd
from omnisapiens_nb.atlas.sources.registry import adapter
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.evaluation.metrics import HELD_OUT_METRICS

KEYS = {d.key for d in DATASETS.values() if d.held_out}
DISPLAYED = 0.00501  # Half of the last digit that a table shows


@pytest.fixture(scope='module')
def folders(held_out_sources):
    return {folder.name: folder for folder in held_out_sources.iterdir()}


@pytest.fixture(scope='module')
def atlas(cli, folders, tmp_path_factory):
    out = tmp_path_factory.mktemp('atlas') / 'atlas'
    sources = [f'--source={name}={folder}' for name, folder in folders.items()]
    result = cli('curate', *sources, '--out', out)
    assert result.returncode == 0, result.stderr
    return out


def test_they_are_five_and_none_of_the_atlas():
    assert KEYS == {'av_asd', 'iemocap', 'eatd', 'mvsa', 'sarcnet'}
    assert KEYS == set(HELD_OUT_WRITERS)
    assert not KEYS & set(WRITERS)


def test_nothing_is_lost(atlas, folders):
    counts = json.loads((atlas / 'manifest.json').read_text())['counts']
    assert set(counts) == KEYS
    for name, count in counts.items():
        assert count['read'] == len(list(adapter(name, folders[name])))
        assert count['read'] == count['kept'] + count['rejected']
        assert count['kept'] and count['rejected']
    text = (atlas / 'rejected.jsonl').read_text(encoding='utf-8')
    rejected = [json.loads(line) for line in text.splitlines()]
    assert Counter(r['dataset'] for r in rejected) == {key: count['rejected'] for key, count in counts.items()}
    assert all(r['file'] and r['row'] and r['reason'] for r in rejected)
    assert str(atlas.parent.parent) not in text


def test_check_finds_no_problem(cli_here, atlas):
    result = cli_here('check', atlas)
    assert result.returncode == 0 and '0 problems' in result.stdout, result.stdout


def test_datasets_opens_it(atlas, tmp_path):
    loaded = datasets.load_dataset(str(atlas), cache_dir=str(tmp_path))
    counts = json.loads((atlas / 'manifest.json').read_text())['counts']
    assert sum(map(len, loaded.values())) == sum(c['kept'] for c in counts.values())
    assert set(loaded['test']['dataset']) == KEYS
    assert set(loaded['train']['dataset']) == {'av_asd', 'sarcnet'}  # the only ones whose authors give a split


def test_media_and_languages(atlas):
    columns = ['dataset', 'language', 'images', 'videos', 'audios']
    rows = []
    for shard in sorted((atlas / 'data').glob('*.parquet')):
        rows += pq.read_table(shard, columns=columns).to_pylist()
    held = {(r['dataset'], len(r['images']), len(r['videos']), len(r['audios'])) for r in rows}
    assert held == {
        ('av_asd', 0, 1, 1),
        ('iemocap', 0, 0, 1),
        ('iemocap', 0, 0, 0),
        ('eatd', 0, 0, 3),
        ('mvsa', 1, 0, 0),
        ('sarcnet', 1, 0, 0),
    }
    assert {r['language'] for r in rows if r['dataset'] == 'sarcnet'} == {'en', 'zh'}
    assert 'mul' not in (atlas / 'README.md').read_text(encoding='utf-8').split('---')[1]


@pytest.fixture(scope='module')
def excerpt(shared):
    return shared / 'data' / 'av_asd'


@pytest.fixture(scope='module')
def table(excerpt):
    with (excerpt / 'dataset' / 'csvs' / 'test.csv').open(encoding='utf-8', newline='') as f:
        return list(csv.DictReader(f))


def test_real_labels_are_the_columns_with_a_one(excerpt, table):
    rows = list(AvAsd(excerpt))
    assert len(rows) == len(table) == 60
    assert not any(isinstance(row, Rejected) for row in rows)
    for row, line in zip(rows, table, strict=True):
        ones = [name for name, mark in line.items() if mark == '1']
        assert row.answer.split(', ') == ones
        assert row.class_label == row.answer
        assert row.raw_label.count('1') == len(ones)
        assert row.id == f'av_asd/{line["Video_ID"]}' and row.split == 'test'
        source, start, end = line['Video_ID'].rsplit('_', 2)
        assert (row.group, row.start, row.end) == (f'avasd:{source}', float(start), float(end))


def test_real_marks_say_one_thing(table):
    "Why rows without a mark, or with Background beside a behaviour, are rejected: no real one is like that."
    marked = [{name for name, mark in line.items() if mark == '1'} for line in table]
    assert all(marked)
    assert all(len(names) == 1 for names in marked if 'Background' in names)
    assert sum(len(names) > 1 for names in marked) == 33


def test_without_clips_no_row_passes(excerpt, tmp_path):
    for row in AvAsd(excerpt):
        assert row_faults(row)
        with pytest.raises(Reject, match='is not in the folder, and the words alone do not carry the label'):
            finish_row(row, Leakage())
    with pytest.raises(SourceError, match='not one of 60 rows passed the gates.*is not in the folder'):
        curate({'av_asd': excerpt}, tmp_path / 'atlas')
    assert not (tmp_path / 'atlas').exists()


def test_the_authors_metrics_stand_beside_ours(cli_here, atlas, tmp_path, beside_release):
    "AV-ASD by its whole set and by weighted F1, MVSA on three classes: recomputed here with scikit-learn."
    columns = open_atlas(atlas, 'test').columns('id', 'dataset', 'answer')
    rows = [row for row in zip(*columns.values()) if row[1] in HELD_OUT_METRICS]
    said = {}
    for number, (row_id, key, answer) in enumerate(rows):
        wrong = f'{answer}, flying' if key == 'av_asd' else 'Positive'  # Flying is no option
        said[row_id] = wrong if number % 3 == 0 else answer.upper()
    lines = [json.dumps(dict(id=row_id, response=f'\\boxed{{{text}}}')) for row_id, text in said.items()]
    predictions = tmp_path / 'model.jsonl'
    predictions.write_text('\n'.join(lines))
    out = tmp_path / 'out'
    result = cli_here('evaluate', '--atlas', atlas, '--predictions', predictions, '--out', out)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(out / 'tables' / 'held_out.csv').set_index(['dataset', 'metric'])
    found = {place: float(text.split()[0]) for place, text in table.model.items()}
    sets = [(answer, said[row_id].lower() == answer.lower()) for row_id, key, answer in rows if key == 'av_asd']
    assert 0 < found['av_asd', 'exact match of the set'] < 1
    exact = sum(right for _, right in sets) / len(sets)
    differences = [abs(found['av_asd', 'exact match of the set'] - exact)]
    assert found['av_asd', 'weighted F1 of the labels'] == 1  # A label that is no option has no reference
    posts = [(answer, said[row_id].lower()) for row_id, key, answer in rows if key == 'mvsa']
    truth, answers = zip(*posts)
    differences.append(abs(found['mvsa', 'three-class accuracy'] - accuracy_score(truth, answers)))
    for average, name in dict(weighted='three-class weighted F1', macro='three-class macro F1').items():
        expected = f1_score(truth, answers, average=average)
        differences.append(abs(found['mvsa', name] - expected))
    over = f'scikit-learn, {len(differences)} scores of a report, which shows two decimals'
    beside_release('Held-out metrics of AV-ASD and MVSA', over, max(differences), DISPLAYED)
    papers = pd.read_csv(out / 'tables' / 'held_out_papers.csv').set_index('model')
    assert papers.loc['HARPO', 'consistency'] == 0.877 and papers.loc['model', ['AUT', 'SMSA']].notna().all()
    report = (out / 'report.html').read_text(encoding='utf-8')
    assert 'Held-out sets as their authors score them' in report
