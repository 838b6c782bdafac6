"Tables as spreadsheets, pandas and tired people write them: no row takes another with it."

import csv
import io

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnisapiens_nb.atlas.reading import read_csv

TEXT = st.text(st.sampled_from('ab ,"\n;é話'), max_size=12)
ROWS = st.lists(st.tuples(st.sampled_from(['Ada', 'Ben']), TEXT), min_size=1, max_size=8)
EVERY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(rows, **options):
    out = io.StringIO()
    writer = csv.writer(out, **options)
    writer.writerow(['who', 'say'])
    writer.writerows(rows)
    return out.getvalue()


def read(folder, text):
    (folder / 'a.csv').write_bytes(text.encode())
    return list(read_csv(folder, 'a.csv', ('who', 'say')))


@EVERY
@given(rows=ROWS, end=st.sampled_from(['\n', '\r\n']), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_what_was_written_is_read(tmp_path, rows, end, quoting):
    found = read(tmp_path, written(rows, lineterminator=end, quoting=quoting))
    assert [record.fault for record in found] == [''] * len(rows)
    assert [(record.data['who'], record.data['say']) for record in found] == rows
    assert [record.row for record in found] == list(range(1, len(rows) + 1))


@EVERY
@given(before=ROWS, after=ROWS, broken=st.sampled_from(['Ada,"oh', 'Ada,"oh "no" well', 'Ada,oh,no', 'Ada', '"Ada,oh']))
def test_a_broken_line_costs_itself(tmp_path, before, after, broken):
    "Rows whose texts have no marks of their own, so that where each begins is beyond doubt."
    before = [(who, say.replace('"', '').replace('\n', ' ')) for who, say in before]
    after = [(who, say.replace('"', '').replace('\n', ' ')) for who, say in after]
    header, *lines = written(before + after, lineterminator='\n').splitlines()
    lines.insert(len(before), broken)
    found = read(tmp_path, '\n'.join([header, *lines]) + '\n')
    assert [bool(record.fault) for record in found] == [False] * len(before) + [True] + [False] * len(after)
    sound = [(record.data['who'], record.data['say']) for record in found if not record.fault]
    assert sound == before + after


def test_a_post_in_several_lines_is_pandas_row(tmp_path):
    table = pd.DataFrame(dict(who=['Ada', 'Ben', 'Cleo'], say=['one\n\ntwo', '"three"\nfour,', 'five']))
    table.to_csv(tmp_path / 'b.csv', index=False)
    found = read(tmp_path, (tmp_path / 'b.csv').read_text())
    assert [record.data for record in found] == table.to_dict('records')


@pytest.mark.parametrize('size', [2_000, 20_000])
def test_marks_that_never_close_do_not_take_for_ever(tmp_path, size):
    "Each line opens a mark and none closes it: one fault, found in a time that grows with the lines."
    (record,) = read(tmp_path, 'who,say\n' + 'Ada,"oh\n' * size)
    assert record.fault.endswith(f'in {size} lines')
