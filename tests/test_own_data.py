"The adapter of the guide on bringing data, as it stands in the notebook, on the real files of GoEmotions."

import json
from collections import Counter

import pytest
from conftest import ROOT

from omnisapiens_nb.atlas.check import check
from omnisapiens_nb.atlas.curate import Choices, curate
from omnisapiens_nb.atlas.datasets import DATASETS
from omnisapiens_nb.atlas.sources.registry import ADAPTERS, register
from omnisapiens_nb.atlas.store import open_atlas

FILES = dict(train='train', validation='dev', test='test')
READ = dict(train=3_000, validation=5_426, test=5_427)
GROUPS = dict(  # label of the Atlas to label ids, counted off in labels.txt by hand
    anger={2, 3, 10},
    disgust={11},
    fear={14, 19},
    happy={0, 1, 4, 5, 8, 13, 15, 17, 18, 20, 21, 23},
    sad={9, 12, 16, 24, 25},
    surprise={6, 7, 22, 26},
    neutral={27},
)


@pytest.fixture(scope='module')
def guide():
    "What the guide's cells on GoEmotions define: its imports, then cells that say so in their first line."
    cells = json.loads((ROOT / 'nbs' / 'guides' / '00_bring_your_own_data.ipynb').read_text(encoding='utf-8'))['cells']
    names = {'__name__': 'guide'}
    for cell in cells:
        if (
            cell['cell_type'] == 'code'
            and cell['source']
            and cell['source'][0].startswith(('import json', 'from omnisapiens_nb', '# GoEmotions:'))
        ):
            exec(''.join(cell['source']), names)
    return names


@pytest.fixture(scope='module')
def real(guide, shared, tmp_path_factory):
    register(guide['GoEmotions'], guide['GOEMOTIONS'])
    yield curate(
        dict(goemotions=shared / 'data' / 'goemotions'), tmp_path_factory.mktemp('own') / 'atlas', Choices(near=False)
    )
    del ADAPTERS['goemotions'], DATASETS['goemotions']


@pytest.fixture(scope='module')
def raw(shared):
    "Lines of each split in their order: text, set of labels, comment id."
    label = {i: name for name, ids in GROUPS.items() for i in ids}
    lines = {
        s: (shared / 'data' / 'goemotions' / 'data' / 'original' / f'{f}.tsv').read_bytes().decode().split('\n')[:-1]
        for s, f in FILES.items()
    }
    parts = {s: [line.split('\t') for line in ls] for s, ls in lines.items()}
    return {
        s: [(text, {label[int(i)] for i in ids.split(',')}, comment) for text, ids, comment in ps]
        for s, ps in parts.items()
    }


def test_read_is_kept_and_rejected(real, raw):
    count = real.counts['goemotions']
    assert {s: len(lines) for s, lines in raw.items()} == READ
    assert count['read'] == sum(READ.values()) == count['kept'] + count['rejected']
    assert dict(real.splits) == {s: sum(len(labels) == 1 for _, labels, _ in lines) for s, lines in raw.items()}


def test_labels_from_the_raw_files(real, raw):
    for split, lines in raw.items():
        found = open_atlas(real.folder, split).columns('id', 'transcript', 'answer', 'source_row')
        expected = [
            (f'goemotions/{split}/{comment}', text, *labels, n)
            for n, (text, labels, comment) in enumerate(lines, 1)
            if len(labels) == 1
        ]
        assert list(zip(*found.values())) == expected


def test_only_comments_of_several_groups_are_rejected(real, raw):
    rejected = [json.loads(line) for line in (real.folder / 'rejected.jsonl').read_text(encoding='utf-8').splitlines()]
    several = Counter(
        (FILES[s], n) for s, lines in raw.items() for n, (_, labels, _) in enumerate(lines, 1) if len(labels) > 1
    )
    assert Counter((r['file'].split('/')[-1].removesuffix('.tsv'), r['row']) for r in rejected) == several
    assert all('more than one emotion of the Atlas' in r['reason'] for r in rejected)


def test_the_folder_is_sound(real):
    rows, problems = check(real.folder)
    assert rows == real.counts['goemotions']['kept'] and problems.empty


def test_the_names_of_the_ids(guide, shared):
    names = (shared / 'data' / 'goemotions' / 'data' / 'original' / 'labels.txt').read_text(encoding='utf-8').split()
    assert len(names) == 28 and guide['GOEMOTIONS'].labels == {
        names[i]: label for label, ids in GROUPS.items() for i in ids
    }
