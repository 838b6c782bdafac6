"Damaged annotation files: every record ends as a row that can be stored, or as a rejection with file, row and reason; or the file as a whole is refused."

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnisapiens_nb.atlas.curate import ANNOTATIONS, finish_row
from omnisapiens_nb.atlas.leakage import Leakage
from omnisapiens_nb.atlas.mini.registry import write_all, write_held_out
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.schema import SCHEMA, Reject, Rejected
from omnisapiens_nb.atlas.sources.registry import adapter

FILE_SYSTEM_ONLY = {'tess', 'ptsd_in_the_wild'}  # no annotation file; their faults are files
MOST = 6  # files that are damaged of a source with one for each row


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    "Annotation files and pictures, small: other rows become text rows or rejections, and no clip is decoded."
    whole, small = tmp_path_factory.mktemp('whole'), tmp_path_factory.mktemp('small')
    found = {}
    for name, folder in (write_all(whole / 'atlas') | write_held_out(whole / 'held_out')).items():
        if name in FILE_SYSTEM_ONLY:
            continue
        for file in sorted(
            p for p in folder.rglob('*') if p.suffix in (*ANNOTATIONS, '.jpg') and p.name != 'cues.jsonl'
        ):
            target = small / name / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            data = file.read_bytes()
            if (
                file.suffix == '.csv'
                or file.name == 'labelResultAll.txt'
                or name == 'siq2'
                and file.parent.name == 'qa'
            ):
                data = b'\n'.join(data.split(b'\n')[:13]) + b'\n'
            target.write_bytes(data)
            if file.suffix in ANNOTATIONS:
                found.setdefault(name, []).append(target.relative_to(small / name))
    for name in ('iemocap', 'eatd', 'mvsa'):
        found[name] = sorted(found[name], key=lambda f: (f.name not in ('labelResultAll.txt', 'new_label.txt'), f))[
            :MOST
        ]
    return small, found


def shuffle_columns(data, order):
    try:
        rows = list(csv.reader(io.StringIO(data.decode())))
    except (UnicodeDecodeError, csv.Error):
        return data
    if not rows or len(rows[0]) < 2:
        return data
    out, width = io.StringIO(), len(rows[0])
    turn = [(i + order) % width for i in range(width)]
    csv.writer(out).writerows([[r[i] for i in turn] if len(r) == width else r for r in rows])
    return out.getvalue().encode()


def damage(data, draw):
    at, other = sorted(draw(st.integers(0, max(0, len(data) - 1))) for _ in range(2))
    piece = draw(
        st.sampled_from(
            [
                b'\xff',
                b'\x00',
                b'"',
                b',',
                b'\n',
                b'{',
                b'null',
                b'9' * 30,
                b'\xed\xa0\x80',
                '🙂'.encode(),
                b'-1',
                b'NaN',
            ]
        )
    )
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
    "Row or rejection of each item, rows as they would be stored."
    leakage = Leakage()
    for item in items:
        if isinstance(item, Rejected):
            yield item
            continue
        try:
            finish_row(item, leakage)
            pa.Table.from_pylist([{name: getattr(item, name) for name in SCHEMA.names}], SCHEMA)
            yield item
        except Reject as e:
            yield Rejected(item.dataset, item.source_file, item.source_row, str(e), item.id)


@settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_is_named_and_nothing_else_is_lost(folders, data):
    small, found = folders
    source = data.draw(st.sampled_from(sorted(found)))
    file = small / source / data.draw(st.sampled_from(found[source]))
    whole = file.read_bytes()
    kinds = damage(whole, data.draw)
    try:
        file.write_bytes(kinds[data.draw(st.sampled_from(sorted(kinds)))]())
        try:
            results = list(outcomes(adapter(source, small / source)))
        except SourceError as e:
            assert str(small) in str(e) and len(str(e)) < 600
        else:
            assert all(r.reason and r.file and r.dataset for r in results if isinstance(r, Rejected))
            assert results
    finally:
        file.write_bytes(whole)


def test_line_by_line_sources_lose_one_row_at_most(folders):
    "A cut in one line of a table costs that line only."
    small, _ = folders
    file = small / 'meld' / 'train_sent_emo.csv'
    whole, lines = file.read_bytes(), file.read_bytes().split(b'\n')

    def count():
        return len([r for r in outcomes(adapter('meld', small / 'meld')) if not isinstance(r, Rejected)])

    before = count()
    try:
        for at in (5, 20, 40):
            file.write_bytes(b'\n'.join([*lines[:4], lines[4][:at], *lines[5:]]))
            assert before - 2 <= count() <= before
    finally:
        file.write_bytes(whole)


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
    file = folders[0] / source / name
    whole, lines = file.read_bytes(), file.read_bytes().split(b'\n')

    def count():
        return [isinstance(item, Rejected) for item in adapter(source, folders[0] / source)]

    before = count()
    try:
        file.write_bytes(b'\n'.join([*lines[:line], lines[line][: len(lines[line]) // 2], *lines[line + 1 :]]))
        assert (len(count()), sum(count())) == (len(before), sum(before) + 1)
    finally:
        file.write_bytes(whole)
