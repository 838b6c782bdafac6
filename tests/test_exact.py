"The same files byte for byte, whatever Python's hashes are; the same rows, whatever order a table has."

import csv
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from hashlib import sha256

import pytest
from conftest import ROOT

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.groups import split_of
from omnisapiens_nb.atlas.mini.registry import WRITERS
from omnisapiens_nb.atlas.sources.mustard import Mustard
from omnisapiens_nb.atlas.store import open_splits

UNCOMPARED = {'images', 'videos', 'audios', 'source_row'}
SMALL = dict(cremad=dict(actors=4), mustard=dict(rows=40), siq2=dict(videos=(4, 1, 1)), meld=dict(dialogues=(4, 2, 2)))
# Sources whose ids name rows by what is in them; in the others a row's number is a part of its id
NAMED = ('meld', 'cremad', 'mustard', 'daicwoz', 'chsimsv2')


def sums(folder):
    files = (path for path in sorted(folder.rglob('*')) if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def test_other_hashes_of_python_change_no_byte(mini_sources, tmp_path):
    "Curation, a fresh model, a warm start, reinforcement, answers and their report, with PYTHONHASHSEED 1 and 2."
    made = []
    for seed in ('1', '2'):
        folder = tmp_path / seed
        folder.mkdir()
        environment = os.environ | dict(OMP_NUM_THREADS='1', PYTHONHASHSEED=seed, PYTHONPATH=str(ROOT))
        command = [sys.executable, ROOT / 'tests' / 'exact_chain.py', mini_sources]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        made.append(sums(folder))
    first, second = made
    assert first == second
    places = {name.split('/')[0] for name in first}
    assert places == {'atlas', 'start', 'sft', 'rl', 'rl.jsonl', 'report'}


def test_more_processes_change_no_byte(mini_sources, tmp_path):
    "One, two and three processes that prepare rows; blocks of rows that the processes end in another order."
    sources = {folder.name: folder for folder in sorted(mini_sources.iterdir()) if folder.is_dir()}
    made = []
    for workers in (1, 2, 3):
        curate(sources, tmp_path / str(workers), workers=workers)
        made.append(sums(tmp_path / str(workers)))
    assert len(made[0]) > 5
    assert made[0] == made[1] == made[2]


def shuffled_lines(text, rng, header):
    lines = text.splitlines(keepends=True)
    head, body = lines[:header], lines[header:]
    rng.shuffle(body)
    return ''.join(head + body)


def shuffle(path, rng):
    "Rows of a table or entries of a JSON file in another order; whether it is such a file."
    if path.suffix == '.csv':
        text = path.read_text(encoding='utf-8-sig')
        is_a_line_a_row = len(list(csv.reader(io.StringIO(text, newline='')))) == len(text.splitlines())
        assert is_a_line_a_row, path
        path.write_text(shuffled_lines(text, rng, header=1), encoding='utf-8')
    elif path.suffix == '.json':
        entries = list(json.loads(path.read_text(encoding='utf-8')).items())
        rng.shuffle(entries)
        path.write_text(json.dumps(dict(entries)), encoding='utf-8')
    else:
        return False
    return True


def rows_of(folder):
    "Rows with their splits, without their media and their place in the table, as texts."
    for split, store in open_splits(folder).items():
        for number in range(len(store)):
            row = {name: value for name, value in store[number].items() if name not in UNCOMPARED}
            yield json.dumps([split, row], sort_keys=True, default=str)


@pytest.mark.parametrize('source', NAMED)
def test_rows_in_another_order_are_the_same_rows(tmp_path, source):
    "Ids, splits, groups, prompts and answers."
    WRITERS[source](tmp_path / 'a', 0, **SMALL.get(source, {}))
    shutil.copytree(tmp_path / 'a', tmp_path / 'b')
    tables = [path for path in sorted((tmp_path / 'b').rglob('*')) if path.parent.name != 'transcripts']
    tables = [path for path in tables if path.is_file() and not path.name.endswith('TRANSCRIPT.csv')]
    rng = random.Random(1)
    before = sums(tmp_path / 'b')
    assert any([shuffle(path, rng) for path in tables])
    assert sums(tmp_path / 'b') != before
    rows = []
    for name in ('a', 'b'):
        curate({source: tmp_path / name}, tmp_path / f'atlas_{name}')
        rows.append(Counter(rows_of(tmp_path / f'atlas_{name}')))
    assert rows[0] == rows[1] and sum(rows[0].values()) > 20


def test_scenes_of_the_real_mustard_keep_their_splits(shared):
    "Named by their least id and by their first one: two of them have another name, and no split is another."
    records = list(Mustard(shared / 'data' / 'mustard').records())
    first = {}
    for record in records:
        first.setdefault(record.data['scene'], record.data['id'])
    renamed = {scene: name for scene, name in first.items() if scene != name}
    assert (len(first), len(renamed)) == (669, 2)
    assert all(split_of(f'mustard:{scene}') == split_of(f'mustard:{name}') for scene, name in renamed.items())
