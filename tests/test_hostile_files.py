"""Files that ask for far more than they hold: each is refused by its name, before room is made for what it asks."""

import io
import pickle
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from omnisapiens_nb.atlas import reading
from omnisapiens_nb.atlas.descriptors import read_descriptors
from omnisapiens_nb.atlas.media import MediaError
from omnisapiens_nb.atlas.reading import SourceError
from omnisapiens_nb.atlas.schema import Reject
from omnisapiens_nb.atlas.sources.urfunny import Urfunny, read_plain_pickle, segment_lines
from omnisapiens_nb.sft.bam_training import row_descriptors
from omnisapiens_nb.sft.released import read_tensors

MANY = 30_000  # Where 20,000 are allowed, so that a test is short


@pytest.fixture(autouse=True)
def fewer(monkeypatch):
    monkeypatch.setattr(reading, 'MOST_CONTAINERS', 20_000)


@contextmanager
def little_memory(most=100):
    "At most so many MB are taken inside."
    tracemalloc.start(1)
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most * 10**6
    finally:
        tracemalloc.stop()


PROTO = b'\x80\x04'
BOMBS = dict(
    room=(PROTO + b'}r\x00\x00\x00\x01.', 'room for 16,777,216 values'),
    numbers=(PROTO + b'}' * 20 + b'q\x0f.', 'not numbered one after the other'),
    sets=(PROTO + b'\x8f' * MANY + b'.', 'more than 20,000 lists'),
    lists=(PROTO + b']' * MANY + b'.', 'more than 20,000 lists'),
    dictionaries=(PROTO + b'}' * MANY + b'.', 'more than 20,000 lists'),
    marks=(PROTO + b'(' * MANY + b'.', 'more than 1,000 containers inside of each other'),
    twice=(PROTO + b'})' + b'2\x86' * 60 + b'K\x01s.', 'a step DUP'),
    key=(PROTO + b'}(K\x01' + b'\x85' * 1_000 + b'K\x01u.', 'a key that is a tuple'),
    long_key=(PROTO + b'}\x8a\x09' + bytes(8) + b'\x7fK\x01s.', 'a key that is a int'),
    call=(b'cos\nsystem\n(S"true"\ntR.', 'asks for os.system'),
    call_by_stack=(pickle.dumps({1: print}), 'asks for builtins.print'),
    nothing=(b'', 'no pickle of plain data'),
    short=(PROTO + b'}', 'no pickle of plain data'),
    no_value=(PROTO + b'.', 'no pickle of plain data'),
    no_mark=(PROTO + b'}u.', 'no pickle of plain data'),
    no_memo=(PROTO + b'h\x05.', 'no pickle of plain data'),
    wrong_place=(PROTO + b'}K\x01a.', 'items that are no list'),
    odd_entries=(PROTO + b'}(K\x01u.', 'entries that are no dictionary'),
)


@pytest.mark.parametrize('name', BOMBS)
def test_a_pickle_that_asks_for_too_much(name, tmp_path):
    data, wrong = BOMBS[name]
    (tmp_path / 'x.pkl').write_bytes(data)
    with little_memory(20), pytest.raises(SourceError, match=wrong) as told:
        read_plain_pickle(tmp_path, 'x.pkl')
    assert str(tmp_path / 'x.pkl') in str(told.value) and 'take the file from its authors' in str(told.value)


def test_the_bound_is_met_in_time(monkeypatch, tmp_path):
    "Twenty million lists, as the bounds are: counting them is a matter of seconds."
    monkeypatch.undo()
    (tmp_path / 'x.pkl').write_bytes(PROTO + b']' * 20_000_000 + b'.')
    with pytest.raises(SourceError, match='more than 3,000,000 lists'):
        read_plain_pickle(tmp_path, 'x.pkl')


@pytest.mark.parametrize('protocol', range(5))
def test_plain_pickles_are_read_as_they_were(protocol, tmp_path):
    shared = ['a', 'b']
    plain = {1: 'text', 'é🙂': [1.5, -3, 2**40, None, True, False], '2': (1, (2, 3), (), (4, 5, 6, 7)), '3': {'a': {}}}
    plain |= {'4': [shared, shared], 5: [], 6: list(range(2_000))}
    (tmp_path / 'x.pkl').write_bytes(pickle.dumps(plain, protocol=protocol))
    found = read_plain_pickle(tmp_path, 'x.pkl')
    assert found == plain and found['4'][0] is found['4'][1]


def test_text_of_python_2(tmp_path):
    (tmp_path / 'x.pkl').write_bytes(b"(dp1\nS'a'\np2\nU\x03\xc3\xa9!p3\ns.")
    assert read_plain_pickle(tmp_path, 'x.pkl') == {'a': 'é!'}


def test_one_text_a_million_times(tmp_path):
    "A pickle names a text many times; a segment is no longer than it may be, nor are all together."
    line = 'word ' * 200
    with little_memory(), pytest.raises(Reject, match='more than 100,000 letters'):
        segment_lines(dict(punchline_sentence='yes', context_sentences=[line] * 1_000_000))
    entry = dict(punchline_sentence='yes', context_sentences=[line] * 90)
    ids = [str(n) for n in range(3_000)]
    files = dict(data_folds=dict(train=ids, dev=[], test=[]), humor_label_sdk=dict.fromkeys(ids, 1))
    for name, data in (files | dict(language_sdk=dict.fromkeys(ids, entry))).items():
        (tmp_path / f'{name}.pkl').write_bytes(pickle.dumps(data))
    with pytest.raises(SourceError, match='language_sdk.pkl: its sentences, written out, have more than 200,000,000'):
        list(Urfunny(tmp_path))


def test_a_line_of_blanks():
    assert segment_lines(dict(punchline_sentence=' ' * 90_000 + 'x (Laughter)'))[0].strip() == 'x'


def torch_file(**members):
    "An archive as torch writes it, with other members in it."
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, data in members.items():
            archive.writestr(f'archive/{name.replace("_", ".", 1)}', data)
    return file.getvalue()


def packed():
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', bytes(10**7))
    return file.getvalue()


TORCH_BOMBS = dict(
    lists=(torch_file(data_pkl=b'\x80\x02' + b']' * MANY + b'.'), 'more than 20,000 lists'),
    packed=(packed(), 'an archive of 9,862 bytes that holds 10,000,000'),
    old=(b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02' + b']' * MANY + b'.', 'more than 20,000 lists'),
    cut=(torch_file(data_pkl=b'\x80\x02].')[:-30], 'no whole archive'),
)


@pytest.mark.parametrize('name', TORCH_BOMBS)
def test_a_file_of_torch_that_asks_for_too_much(name, tmp_path):
    data, wrong = TORCH_BOMBS[name]
    (tmp_path / 'heads.bin').write_bytes(data)
    with little_memory(20), pytest.raises(SourceError, match=wrong):
        read_tensors(tmp_path / 'heads.bin')
    with little_memory(20), pytest.raises(MediaError, match=wrong):
        read_descriptors(data, 3)


@pytest.mark.parametrize('archive', [True, False])
def test_files_of_torch_are_read_as_they_were(archive, tmp_path):
    torch.save(dict(features=torch.arange(3.0)), tmp_path / 'x.bin', _use_new_zipfile_serialization=archive)
    assert read_tensors(tmp_path / 'x.bin')['features'].tolist() == [0, 1, 2]
    assert read_descriptors((tmp_path / 'x.bin').read_bytes(), 3).tolist() == [0, 1, 2]


def many_times(depth, found):
    "A list that holds one list twice, and so on."
    for _ in range(depth):
        found = [found, found]
    return found


def itself():
    found = []
    found.append(found)
    return found


ONES = torch.ones(3)
ODD = dict(
    sparse=(ONES.to_sparse(), 'no dense tensor'),
    rows_sparse=(torch.eye(3).to_sparse_csr(), 'no dense tensor'),
    meta=(torch.ones(3, device='meta'), 'no dense tensor'),
    nested=(torch.nested.nested_tensor([ONES, ONES[:2]], layout=torch.jagged), 'no dense tensor'),
    complex=(ONES + 0j, 'complex numbers'),
    truth=(ONES > 0, 'truth values'),
    shown_often=(torch.ones(1).expand(10**11), 'no dense tensor'),
    one_number=(torch.tensor(1.0), r'1 descriptors where 3|the shape \(\)'),
    texts=(['a', 'b', 'c'], 'no array of numbers|no tensor of features'),
    uneven=([[1.0], [1.0, 2.0]], 'no array of numbers|no tensor of features'),
    large=([10**400] * 3, 'no array of numbers|no tensor of features'),
    twice=(many_times(40, [1.0]), 'more than 8 inside of each other|no tensor of features'),
    wide=([[[1.0] * 1_000] * 1_000] * 1_000, 'more than 10,000,000 entries|no tensor of features'),
    later=([[1.0], many_times(30, [1.0])], 'more than 8 inside of each other|no tensor of features'),
    wide_later=([[1.0], [[1.0] * 10_000] * 10_000], 'more than 10,000,000 entries|no tensor of features'),
    itself=(itself(), 'more than 8 inside of each other|no tensor of features'),
    nan=(ONES * float('nan'), '3 of 3 descriptors are not finite'),
    inf=(ONES / 0, '3 of 3 descriptors are not finite'),
    too_large=(torch.full((3,), 1e300, dtype=torch.float64), '3 of 3 descriptors are not finite'),
)


@pytest.mark.parametrize('name', ODD)
def test_odd_descriptors_end_in_a_sentence(name):
    "Bare, and as the release writes them."
    odd, wrong = ODD[name]
    for held in (odd, dict(features=odd)):
        file = io.BytesIO()
        torch.save(held, file)
        with little_memory(20), pytest.raises(MediaError, match=wrong):
            read_descriptors(file.getvalue(), 3)


def test_a_numpy_file_of_objects_is_none():
    file = io.BytesIO()
    np.save(file, np.array([1, 'a'], dtype=object))
    with pytest.raises(MediaError, match='neither safetensors nor a .pt archive'):
        read_descriptors(file.getvalue(), 3)


def test_odd_descriptors_of_a_row_are_named():
    "A row says which it is, and which of its descriptors."
    file = io.BytesIO()
    torch.save(dict(features=torch.ones(1).expand(6373)), file)
    row = dict(id='mine/7', ext_audio_feats=[file.getvalue()])
    with pytest.raises(SourceError, match='mine/7, audio: features is no dense tensor; save the numbers as they are'):
        row_descriptors(row, dict(audio='compare'))


@pytest.mark.parametrize('name', ['sparse', 'meta', 'complex', 'truth', 'shown_often', 'nan'])
def test_odd_weights_of_a_released_file(name, tmp_path):
    torch.save({'heads.0.weight': ODD[name][0]}, tmp_path / 'heads.bin')
    with pytest.raises(SourceError, match='heads.bin: heads.0.weight (is no dense tensor|has numbers that are not)'):
        read_tensors(tmp_path / 'heads.bin')
