"""Damaged annotation files: every record ends as a row that can be stored, or as a rejection with file, row and reason;
or the file as a whole is refused.

With OMNISAPIENS_ALL=1, as under `make faults`, two thousand files."""

import csv
import io
import os
from contextlib import contextmanager

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnisapiens_nb.atlas.curate import ANNOTATIONS, finish_row
from omnisapiens_nb.atlas.leakage import Leakage
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.schema import SCHEMA, Reject, Rejected
from omnisapiens_nb.atlas.sources.registry import adapter

FILE_SYSTEM_ONLY = {'tess', 'ptsd_in_the_wild'}  # no annotation file; their faults are files
LABELS = ('labelResultAll.txt', 'new_label.txt')
DAMAGED = 2000 if os.environ.get('OMNISAPIENS_ALL') == '1' else 350  # Files
MOST = 6  # files that are damaged of a source with one for each row, those with labels first


@pytest.fixture(scope='module')
def folders(every_source, held_out_sources, tmp_path_factory):
    "Annotation files and pictures, small: other rows become text rows or rejections, and no clip is decoded."
    small = tmp_path_factory.mktemp('small')
    found = {}
    for folder in (*every_source.iterdir(), *held_out_sources.iterdir()):
        if folder.name not in FILE_SYSTEM_ONLY:
            found[folder.name] = copy_small(folder.name, folder, small / folder.name)
    for name in ('iemocap', 'eatd', 'mvsa'):
        found[name] = sorted(found[name], key=lambda file: (file.name not in LABELS, file))[:MOST]
    return small, found


def copy_small(source, folder, target):
    "Copy annotation files and pictures, tables by their first rows; returns the annotation files, relative."
    annotations = []
    for file in sorted(folder.rglob('*')):
        if file.suffix not in (*ANNOTATIONS, '.jpg') or file.name == 'cues.jsonl':
            continue
        name = file.relative_to(folder)
        data = file.read_bytes()
        if is_table(source, file):
            data = b'\n'.join(data.split(b'\n')[:13]) + b'\n'
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
        if file.suffix in ANNOTATIONS:
            annotations.append(name)
    return annotations


def is_table(source, file):
    "Whether each line of a file is a row of its own."
    if source == 'siq2' and file.parent.name == 'qa':
        return True
    return file.suffix == '.csv' or file.name == 'labelResultAll.txt'


def shuffle_columns(data, order):
    try:
        rows = list(csv.reader(io.StringIO(data.decode())))
    except (UnicodeDecodeError, csv.Error):
        return data
    if not rows or len(rows[0]) < 2:
        return data
    width = len(rows[0])
    turn = [(i + order) % width for i in range(width)]
    out = io.StringIO()
    for row in rows:
        csv.writer(out).writerow([row[i] for i in turn] if len(row) == width else row)
    return out.getvalue().encode()


PIECES = [b'\xff', b'\x00', b'"', b',', b'\n', b'{', b'null', b'9' * 30, b'\xed\xa0\x80', '🙂'.encode(), b'-1', b'NaN']


def damage(data, draw):
    "Ways to damage a file, by name."
    place = st.integers(0, max(0, len(data) - 1))
    at, other = sorted(draw(place) for _ in range(2))
    piece = draw(st.sampled_from(PIECES))
    lines = data.split(b'\n')
    return dict(
        truncate=lambda: data[:at],
        cut=lambda: data[:at] + data[other:],
        insert=lambda: data[:at] + piece + data[at:],
        replace=lambda: data[:at] + piece + data[at + len(piece) :],
        bom=lambda: b'\xef\xbb\xbf' + data,
        crlf=lambda: data.replace(b'\n', b'\r\n'),
        twice=lambda: b'\n'.join(lines[:2] + lines[1:]),
        columns=lambda: shuffle_columns(data, at),
    )


def outcomes(items):
    "Row or rejection of each item; all rows can be stored."
    leakage = Leakage()
    rows = []
    found = []
    try:
        for item in items:
            if isinstance(item, Rejected):
                found.append(item)
                continue
            try:
                finish_row(item, leakage)
                rows.append({name: getattr(item, name) for name in SCHEMA.names})
                found.append(item)
            except Reject as e:
                found.append(Rejected(item.dataset, item.source_file, item.source_row, str(e), item.id))
    finally:
        pa.Table.from_pylist(rows, SCHEMA)  # Those before a refusal of the whole file as well
    return found


@contextmanager
def rewritten(file, data):
    "A file with other content for a while."
    whole = file.read_bytes()
    try:
        file.write_bytes(data)
        yield
    finally:
        file.write_bytes(whole)


@settings(max_examples=DAMAGED, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_is_named_and_nothing_else_is_lost(folders, data):
    small, found = folders
    source = data.draw(st.sampled_from(sorted(found)))
    file = small / source / data.draw(st.sampled_from(found[source]))
    kinds = damage(file.read_bytes(), data.draw)
    kind = data.draw(st.sampled_from(sorted(kinds)))
    with rewritten(file, kinds[kind]()):
        try:
            results = outcomes(adapter(source, small / source))
        except SourceError as e:
            assert str(small) in str(e) and len(str(e)) < 600
            return
    assert results
    assert all(r.reason and r.file and r.dataset for r in results if isinstance(r, Rejected))


def test_line_by_line_sources_lose_one_row_at_most(folders):
    "A cut in one line of a table costs that line only."
    small, _ = folders
    file = small / 'meld' / 'train_sent_emo.csv'
    lines = file.read_bytes().split(b'\n')

    def count():
        results = outcomes(adapter('meld', small / 'meld'))
        return sum(not isinstance(result, Rejected) for result in results)

    before = count()
    for at in (5, 20, 40):
        with rewritten(file, b'\n'.join([*lines[:4], lines[4][:at], *lines[5:]])):
            assert before - 2 <= count() <= before  # A line serves two keys


@pytest.mark.parametrize(
    'source, name, line',
    [
        ('av_asd', 'dataset/csvs/val.csv', 2),
        ('iemocap', 'Session3/dialog/EmoEvaluation/Ses03F_impro01.txt', 14),
        ('mvsa', 'labelResultAll.txt', 10),
        ('sarcnet', 'SarcNetVal.csv', 2),
    ],
)
def test_a_cut_line_of_a_held_out_set_is_one_rejection(folders, source, name, line):
    small, _ = folders
    file = small / source / name
    lines = file.read_bytes().split(b'\n')

    def rejections():
        return [isinstance(item, Rejected) for item in adapter(source, small / source)]

    before = rejections()
    half = lines[line][: len(lines[line]) // 2]
    with rewritten(file, b'\n'.join([*lines[:line], half, *lines[line + 1 :]])):
        after = rejections()
    assert len(after) == len(before)
    assert sum(after) == sum(before) + 1
