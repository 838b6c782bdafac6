"Faults that real recordings and tables showed: each on the real file, and on one made here."

import hashlib
import json
import pickle
import shutil
import wave
from collections import defaultdict

import numpy as np
import pytest

from omnisapiens_nb.atlas.check import check
from omnisapiens_nb.atlas.curate import Choices, curate
from omnisapiens_nb.atlas.datasets import DATASETS, Dataset
from omnisapiens_nb.atlas.formats import format_of
from omnisapiens_nb.atlas.leakage import Leakage, rows_to_drop
from omnisapiens_nb.atlas.media import count_frames, duration, has_sound, read_audio, write_wav
from omnisapiens_nb.atlas.reading import SourceError, read_csv, read_json_lines
from omnisapiens_nb.atlas.schema import Reject, Row
from omnisapiens_nb.atlas.sources.daicwoz import read_tabs
from omnisapiens_nb.atlas.sources.iemocap import read_evaluation, read_words
from omnisapiens_nb.atlas.sources.meld import Meld
from omnisapiens_nb.atlas.sources.mosei import _span, open_csd, read_sequence
from omnisapiens_nb.atlas.sources.mvsa import MVSA_FILE, read_posts
from omnisapiens_nb.atlas.sources.registry import ADAPTERS, register
from omnisapiens_nb.atlas.sources.siq2 import Siq2
from omnisapiens_nb.atlas.sources.urfunny import read_plain_pickle
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.studies import voices

CREMAD_TWINS = [
    ('1006_TIE_HAP_XX', '1006_TIE_NEU_XX'),
    ('1013_WSI_DIS_XX', '1013_WSI_SAD_XX'),
    ('1017_IWW_ANG_XX', '1017_IWW_FEA_XX'),
]


def rejections(result):
    "Every rejection of a curation; rows read are rows kept and rows rejected."
    for count in result.counts.values():
        assert count['read'] == count['kept'] + count['rejected']
    lines = (result.folder / 'rejected.jsonl').read_text(encoding='utf-8').splitlines()
    rejected = [json.loads(line) for line in lines]
    assert len(rejected) == sum(count['rejected'] for count in result.counts.values())
    return rejected


def reasons(result):
    "Id, or file where a row has none, to the reason."
    return {r['id'] or r['file']: r['reason'] for r in rejections(result)}


def kept(result):
    "Ids in the Atlas."
    splits = {path.name.split('-')[0] for path in (result.folder / 'data').iterdir()}
    return {row_id for split in splits for row_id in open_atlas(result.folder, split).columns('id')['id']}


def tone(number, seconds=1.5):
    return write_wav(0.2 * np.sin(np.arange(int(16_000 * seconds)) / (5 + number)).astype(np.float32))


def cremad_of(folder, clips):
    "A folder in CREMA-D's format with these clips, name to bytes."
    (folder / 'AudioWAV').mkdir(parents=True)
    lines = ['"Stimulus_Number","Filename"', *(f'{n},"{name}"' for n, name in enumerate(clips, 1))]
    (folder / 'SentenceFilenames.csv').write_text('\n'.join(lines) + '\n')
    for name, data in clips.items():
        (folder / 'AudioWAV' / f'{name}.wav').write_bytes(data)
    return folder


@pytest.fixture(scope='module')
def listed(shared):
    "Clip of CREMA-D to [sha256, bytes]."
    return json.loads((shared / 'data' / 'cremad_clips' / 'lfs_sha256_AudioWAV.json').read_text())


@pytest.fixture(scope='module')
def real_cremad(shared, tmp_path_factory):
    "The real clips, tables and checksums in one folder."
    folder = tmp_path_factory.mktemp('cremad') / 'cremad'
    shutil.copytree(shared / 'data' / 'cremad', folder)
    shutil.copytree(shared / 'data' / 'cremad_clips', folder, dirs_exist_ok=True)
    return folder


def test_twins_of_cremad_are_those_of_its_checksums(listed):
    same = defaultdict(list)
    for name, (digest, _) in listed.items():
        same[digest].append(name)
    assert sorted(tuple(sorted(names)) for names in same.values() if len(names) > 1) == CREMAD_TWINS


def test_both_twins_of_cremad_are_rejected(tmp_path):
    "The names are the real ones, the bytes are made; a third pair differs."
    clips = {}
    for number, pair in enumerate(CREMAD_TWINS[:2]):
        clips |= dict.fromkeys(pair, tone(number))
    clips |= {name: tone(7 + number) for number, name in enumerate(CREMAD_TWINS[2])}
    result = curate(dict(cremad=cremad_of(tmp_path / 'cremad', clips)), tmp_path / 'atlas')
    told = reasons(result)
    assert kept(result) == {f'cremad/{name}' for name in CREMAD_TWINS[2]}
    for pair in CREMAD_TWINS[:2]:
        for one, other in (pair, pair[::-1]):
            reason = told[f'cremad/{one}']
            assert f'cremad/{other} (SentenceFilenames.csv, row ' in reason and 'nothing says which is right' in reason
    assert not any(entry['kind'] == 'medium' for entry in result.leakage)


def test_a_real_clip_under_two_names(real_cremad, tmp_path):
    names = ['1001_DFA_ANG_XX', '1001_IOM_ANG_XX']
    data = (real_cremad / 'AudioWAV' / f'{names[0]}.wav').read_bytes()
    twins = cremad_of(tmp_path / 'cremad', {names[0]: data, names[1]: data, '1001_DFA_SAD_XX': tone(1)})
    result = curate(dict(cremad=twins), tmp_path / 'atlas')
    assert reasons(result) == {
        f'cremad/{names[1]}': f'the same bytes as cremad/{names[0]} (SentenceFilenames.csv, row 1), which is kept'
    }


def test_twins_are_found_in_any_source(tmp_path):
    "Words of TESS: two of one emotion in one recording, and two of different emotions."
    folder = tmp_path / 'tess' / 'OAF_sad'
    folder.mkdir(parents=True)
    for number, word in enumerate(('back', 'bar', 'base')):
        (folder / f'OAF_{word}_sad.wav').write_bytes(tone(number // 2))
    other = tmp_path / 'tess' / 'YAF_angry'
    other.mkdir()
    (other / 'YAF_base_angry.wav').write_bytes(tone(1))
    told = reasons(curate(dict(tess=tmp_path / 'tess'), tmp_path / 'atlas'))
    assert told.keys() >= {'tess/OAF_base_sad', 'tess/YAF_base_angry'} and len(told) == 3
    copy = next(name for name in told if 'sad' in name and 'base' not in name)
    assert 'which is kept' in told[copy]


def test_checksums_of_cremad(real_cremad, listed, tmp_path):
    "A sound copy passes, an exchanged and a cut clip are named, and the pointer is left to the gate of media."
    names = sorted(path.stem for path in (real_cremad / 'AudioWAV').iterdir())
    sound = curate(dict(cremad=real_cremad), tmp_path / 'sound')
    assert kept(sound) == {f'cremad/{name}' for name in names}
    damaged = tmp_path / 'cremad'
    shutil.copytree(real_cremad, damaged)
    changed = bytearray((damaged / 'AudioWAV' / f'{names[0]}.wav').read_bytes())
    changed[1_000] ^= 1
    clips = {
        names[0]: bytes(changed),
        names[1]: (damaged / 'AudioWAV' / f'{names[1]}.wav').read_bytes()[:-2],
        names[2]: b'version https://git-lfs.github.com/spec/v1\n',
    }
    for name, data in clips.items():
        (damaged / 'AudioWAV' / f'{name}.wav').write_bytes(data)
    told = rejections(curate(dict(cremad=damaged), tmp_path / 'damaged'))
    told = {name: next(r['reason'] for r in told if r['reason'].startswith(f'{name}.wav')) for name in clips}
    size = listed[names[0]][1]
    assert f'({size} bytes, sha256 {hashlib.sha256(bytes(changed)).hexdigest()[:12]}' in told[names[0]]
    assert 'is not the recording of that name in lfs_sha256_AudioWAV.json' in told[names[1]]
    assert 'git lfs pull' in told[names[2]]


def test_lengths_of_the_real_sets_are_inside_their_bounds(shared, listed):
    "By sizes of files and by headers, and not by our reader."
    seconds = [(size - 44) / 32_000 for _, size in listed.values()]
    assert (round(min(seconds), 2), round(max(seconds), 2)) == (1.27, 5.0)
    shortest, longest = DATASETS['cremad'].seconds
    assert shortest < min(seconds) and max(seconds) < longest
    lengths = {}
    for path in (shared / 'data' / 'tess').rglob('*.wav'):
        try:
            with wave.open(str(path)) as sound:
                lengths[path.name] = sound.getnframes() / sound.getframerate()
        except wave.Error:  # AIFF, and floats
            continue
    assert len(lengths) == 557
    assert (round(min(lengths.values()), 2), round(max(lengths.values()), 2)) == (1.31, 2.92)


@pytest.fixture(scope='module')
def real_tess(shared, tmp_path_factory):
    return curate(dict(tess=shared / 'data' / 'tess'), tmp_path_factory.mktemp('tess') / 'atlas')


def test_a_file_of_tess_that_is_none(real_tess):
    "One of 560; the two that are AIFF are kept."
    told = reasons(real_tess)
    assert told == {
        'tess/YAF_beg_sad': 'YAF_beg_sad.wav: it lasts 5.00 s, and recordings of Toronto Emotional Speech Set last '
        '0.9 to 4 s; put the original file in its place'
    }
    assert {'tess/YAF_germ_angry', 'tess/YAF_neat_fear', 'tess/OAF_bite_neutral'} <= kept(real_tess)
    assert real_tess.counts['tess'] == dict(read=560, kept=559, rejected=1, text_only=0)


@pytest.mark.parametrize('seconds, fits', [(0.5, False), (0.95, True), (3.9, True), (4.1, False), (60, False)])
def test_lengths_that_cannot_be_right(tmp_path, seconds, fits):
    folder = tmp_path / 'tess' / 'OAF_sad'
    folder.mkdir(parents=True)
    for number, (word, length) in enumerate(dict(back=seconds, bar=2).items()):
        (folder / f'OAF_{word}_sad.wav').write_bytes(tone(number, length))
    result = curate(dict(tess=tmp_path / 'tess'), tmp_path / 'atlas')
    told = rejections(result)
    assert len(told) == (not fits)
    assert fits or f'it lasts {seconds:.2f} s' in told[0]['reason']


def urfunny_of(folder, folds, labels, language):
    "A folder of three pickles."
    folder.mkdir()
    for name, data in dict(data_folds=folds, humor_label_sdk=labels, language_sdk=language).items():
        (folder / f'{name}.pkl').write_bytes(pickle.dumps(data))
    return folder


def words_for(ids):
    return {i: dict(punchline_sentence=f'it was number {i}', context_sentences=[]) for i in ids}


@pytest.fixture(scope='module')
def urfunny(shared):
    "The real labels of both versions, and the folds of the first; read by the reader that runs nothing."
    folder = shared / 'data' / 'urfunny'
    files = dict(v1='v1/humor_label_sdk.pkl', v2='v2/humor_label_sdk.pkl', folds='v1/data_folds.pkl')
    return {name: read_plain_pickle(folder, file) for name, file in files.items()}


def test_versions_of_urfunny_number_their_segments_differently(urfunny):
    v1, v2 = urfunny['v1'], urfunny['v2']
    both = v1.keys() & v2.keys()
    assert (len(v1), len(v2), len(both)) == (16_606, 10_166, 10_093)
    assert sum(v1[i] != v2[i] for i in both) == 5_026


def test_urfunny_version_1_is_told(urfunny, tmp_path):
    folder = urfunny_of(tmp_path / 'urfunny', urfunny['folds'], urfunny['v1'], words_for(urfunny['v1']))
    with pytest.raises(SourceError, match='humor_label_sdk.pkl: .* as in UR-FUNNY version 1; .* from version 2'):
        curate(dict(urfunny=folder), tmp_path / 'atlas')


def test_folds_and_labels_of_different_versions_of_urfunny(urfunny, tmp_path):
    "In each order, and the words of another version too."
    v1, v2 = list(urfunny['v1']), list(urfunny['v2'])
    folds_v2 = dict(train=v2[:8_000], dev=v2[8_000:9_000], test=v2[9_000:])
    whole = {i: int(label) for i, label in urfunny['v1'].items()}  # Without the point, only the ids tell
    cases = (
        (urfunny['folds'], urfunny['v2'], v2),
        (urfunny['folds'], urfunny['v2'], v1),
        (folds_v2, whole, v2),
        (folds_v2, urfunny['v2'], v1),
    )
    for number, (folds, labels, ids) in enumerate(cases):
        folder = urfunny_of(tmp_path / f'{number}', folds, labels, words_for(ids))
        with pytest.raises(SourceError, match='are in one of the two only; they are of different versions'):
            curate(dict(urfunny=folder), tmp_path / 'atlas')
    sound = urfunny_of(tmp_path / 'sound', folds_v2, urfunny['v2'], words_for(v2))
    result = curate(dict(urfunny=sound), tmp_path / 'atlas', Choices(near=False))
    assert result.counts['urfunny']['kept'] == 10_166


@pytest.mark.parametrize('points, stops', [(40, False), (60, True)])
def test_labels_with_a_point(tmp_path, points, stops):
    "One here and there costs its row; where most have one, the file is of another version."
    ids = list(range(1, 101))
    labels = {i: i % 2 if i > points else float(i % 2) for i in ids}
    folder = urfunny_of(tmp_path / 'urfunny', dict(train=ids, dev=[], test=[]), labels, words_for(ids))
    if stops:
        with pytest.raises(SourceError, match='version 1'):
            curate(dict(urfunny=folder), tmp_path / 'atlas')
        return
    told = rejections(curate(dict(urfunny=folder), tmp_path / 'atlas'))
    assert len(told) == points and all('label' in r['reason'] and '.0' in r['reason'] for r in told)


ENDS = {'LF': b'\n', 'CR LF': b'\r\n', 'CR CR LF': b'\r\r\n', 'CR': b'\r'}


def with_ends(data, end):
    "A file's bytes with other line ends."
    return end.join(data.replace(b'\r\n', b'\n').split(b'\n'))


@pytest.mark.parametrize('end', ENDS.values(), ids=ENDS)
def test_line_ends_of_real_tables(shared, tmp_path, end):
    "MELD's tables and the JSON Lines of Social-IQ give the same rows, whatever their lines end in."
    for source, adapter in (('meld', Meld), ('siq2', Siq2)):
        folder = tmp_path / source
        shutil.copytree(shared / 'data' / source, folder)
        for path in folder.rglob('*.csv') if source == 'meld' else folder.rglob('qa_*.json'):
            path.write_bytes(with_ends(path.read_bytes(), end))
        rows = list(adapter(folder))
        assert rows == [replace_folder(row, folder) for row in adapter(shared / 'data' / source)]


def replace_folder(item, folder):
    "A row whose media lie in another folder."
    if isinstance(item, Row):
        item.videos = [folder.joinpath(*path.parts[-2:]) for path in item.videos]
    return item


@pytest.mark.parametrize('end', ENDS.values(), ids=ENDS)
def test_line_ends_of_every_reader(tmp_path, end):
    def write(name, *lines):
        (tmp_path / name).write_bytes(end.join(line.encode() for line in [*lines, '']))

    write('a.csv', 'who,say', '"Ada","oh, no"', 'Ben,well')
    assert [r.data for r in read_csv(tmp_path, 'a.csv', ('who', 'say'))] == [
        dict(who='Ada', say='oh, no'),
        dict(who='Ben', say='well'),
    ]
    write('a.tsv', 'start\tvalue', '1\twell', '2\tno')
    assert [r.data['value'] for r in read_tabs(tmp_path, 'a.tsv', ('value',))] == ['well', 'no']
    write(MVSA_FILE, 'ID\ttext,image\ttext,image\ttext,image', '7\t' + '\t'.join(['positive,neutral'] * 3))
    assert [(r.data['id'], r.data['votes'][-1], r.fault) for r in read_posts(tmp_path)] == [('7', 'neutral', '')]
    write('e.txt', '% head', '', '[1.0 - 2.5]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]')
    assert [(r.row, r.data['label']) for r in read_evaluation(tmp_path, 'e.txt')] == [(3, 'neu')]
    write('w.txt', 'Ses01F_impro01_F000 [001.0-002.5]: Well then.', 'Ses01F_impro01_F001 [003.0-004.0]: No.')
    assert list(read_words(tmp_path, 'w.txt').values()) == ['Well then.', 'No.']
    write('a.json', '{"q": 1}', '{"q": 2}')
    assert [r.data['q'] for r in read_json_lines(tmp_path, 'a.json', ('q',))] == [1, 2]


def eatd_of(folder, files):
    "One person of EATD, file name to bytes."
    home = folder / 't_1'
    home.mkdir(parents=True)
    for name, data in files.items():
        (home / f'{name}.wav').write_bytes(data)
    (home / 'new_label.txt').write_text('61.250000')
    return folder


EXTENSIBLE = b'WAVEfmt ' + (40).to_bytes(4, 'little') + bytes(40) + b'LIST' + (3).to_bytes(4, 'little') + b'abc\0data'


@pytest.mark.parametrize(
    'hollow',
    [b'', write_wav(np.zeros(0)), b'RIFF' + bytes(4) + EXTENSIBLE, b'RIFF' + bytes(4) + EXTENSIBLE + bytes(4)],
    ids=['empty', 'header', 'no size', 'long header'],
)
def test_a_header_is_no_answer(tmp_path, hollow):
    "The silence was taken out and everything with it: the answer is taken as it was recorded."
    moods = ('positive', 'neutral', 'negative')
    files = {mood: tone(number) for number, mood in enumerate(moods)}
    files |= {'positive_out': tone(7), 'neutral_out': hollow}
    result = curate(dict(eatd=eatd_of(tmp_path / 'eatd', files)), tmp_path / 'atlas')
    (row,) = open_atlas(result.folder, 'test')
    assert row['audios'] == [files['positive_out'], files['neutral'], files['negative']]
    listed = (result.folder / 'media.sha256').read_text()
    assert 'eatd/t_1/neutral.wav' in listed and 'neutral_out' not in listed


def test_fixed_sentences_are_not_dropped_for_their_words(shared, tmp_path):
    "All lines of TESS are nearly one; the report says so, and the manifest which sets are like that."
    drop = Choices(drop=('text', 'near_text'))
    result = curate(dict(tess=shared / 'data' / 'tess'), tmp_path / 'atlas', drop)
    assert result.counts['tess']['kept'] == 559
    manifest = json.loads((result.folder / 'manifest.json').read_text())
    assert manifest['scripted'] == ['tess']


def emotional(dataset, number, split, words, **fields):
    return Row(f'{dataset}/{number}', dataset, 'emotion_cls', split=split, transcript=words, **fields)


def test_words_of_a_scripted_set_take_nothing_from_others():
    "A line of MELD that is a sentence of CREMA-D stays when CREMA-D is tested; one that is a line of MELD goes."
    found = Leakage()
    found.add(emotional('cremad', 1, 'test', 'That is exactly what happened'))
    found.add(emotional('meld_emotion', 2, 'train', 'That is exactly what happened!'))
    found.add(emotional('meld_emotion', 3, 'train', 'what a very fine morning'))
    found.add(emotional('meld_emotion', 4, 'test', 'what a very fine morning'))
    for kind in ('text', 'near_text'):
        assert list(rows_to_drop(found, (kind,))) == ['meld_emotion/3']


def test_what_a_set_asks_of_every_row_is_no_text():
    "Videos without a transcript: the question of their set ties nothing, their own question does."
    found = Leakage()
    for number, split in enumerate(('train', 'train', 'validation', 'test')):
        asked = DATASETS['ptsd_in_the_wild'].question
        found.add(Row(f'p/{number}', 'ptsd_in_the_wild', 'ptsd_cls', split=split, question=asked))
        found.add(Row(f's/{number}', 'siq2', 'social_qa', split=split, question='Why does she look away?'))
    assert set(rows_to_drop(found, ('text',))) == {'s/0', 's/1', 's/2'}


def test_a_set_of_fixed_sentences_that_does_not_say_so():
    "Real ones of Emo-DB have ten sentences: its training split would go as a whole."
    found = Leakage(near=False)
    for number in range(40):
        split = 'test' if number >= 20 else 'train'
        found.add(emotional('emodb', number, split, f'sentence number {number % 10} of them', person=f'{number // 10}'))
    with pytest.raises(SourceError, match='emodb: .* all 20 rows of its train split; .* scripted=True in its Dataset'):
        rows_to_drop(found, ('text',))
    assert len(rows_to_drop(found, ('text',), ['emodb'])) == 20


def lines_in(path):
    return sum(bool(line.strip()) for line in path.read_bytes().split(b'\n'))


def read_by_other_means(source, folder):
    "Rows that a source's files hold, key by key, counted without the package."
    if source == 'tess':
        return dict(tess=sum(path.is_file() for path in folder.rglob('*')))
    if source == 'cremad':
        return dict(cremad=lines_in(folder / 'SentenceFilenames.csv') - 1)
    if source == 'mmpsy':
        people = len(json.loads((folder / 'wav_select.json').read_text(encoding='utf-8')))
        return dict(mmpsy_depression=people, mmpsy_anxiety=people)
    tables = dict(intentqa='**/*.csv', meld='*_sent_emo.csv')
    if source in tables:
        rows = sum(lines_in(path) - 1 for path in folder.glob(tables[source]))
        return {key: rows for key, dataset in DATASETS.items() if dataset.source == source}
    if source == 'mustard':
        return dict(mmsd=len(json.loads((folder / 'sarcasm_data.json').read_text(encoding='utf-8'))))
    return dict(siq2=sum(map(lines_in, folder.glob('qa/*.json'))))


KEPT = dict(  # Keys in their order; what is missing was rejected for what stands in WHY
    cremad=[17], tess=[559], meld=[13_708, 13_708], mustard=[690], siq2=[2_943], mmpsy=[150, 150], intentqa=[200]
)
WHY = dict(
    cremad={'the words alone do not carry the label': 7_425},
    tess={'it lasts 5.00 s': 1},
    siq2={'the answer is empty': 1_715},
)


@pytest.mark.parametrize('source', KEPT)
def test_every_real_file_is_curated_and_checked(source, shared, real_cremad, tmp_path):
    "What each folder holds is kept or rejected, each rejection is one that was read and found right."
    folder = real_cremad if source == 'cremad' else shared / 'data' / source
    result = curate({source: folder}, tmp_path / 'atlas', Choices(near=False))
    assert {key: count['read'] for key, count in result.counts.items()} == read_by_other_means(source, folder)
    assert sorted(count['kept'] for count in result.counts.values()) == sorted(KEPT[source])
    told = [r['reason'] for r in rejections(result)]
    assert {why: sum(why in reason for reason in told) for why in WHY.get(source, {})} == WHY.get(source, {})
    assert len(told) == sum(WHY.get(source, {}).values())
    odd = [note for note in result.notes if 'has no length' in note.note]
    assert len(odd) == (2 if source == 'meld' else 0)  # One line of the test table, under both keys
    rows, problems = check(result.folder)
    assert rows == sum(KEPT[source]) and problems.empty


def test_sources_of_which_too_little_is_here(shared, tmp_path):
    "Labels without clips, labels without folds, and another version: one sentence each."
    for source, folder, says in (
        ('av_asd', 'av_asd', 'not one of 60 rows passed the gates; .* is not in the folder'),
        ('urfunny', 'urfunny/v2', 'data_folds.pkl: no such file'),
        ('urfunny', 'urfunny/v1', 'version 1'),
    ):
        with pytest.raises(SourceError, match=says):
            curate({source: shared / 'data' / folder}, tmp_path / 'atlas')
    assert not list(tmp_path.iterdir())


class EmoDB(voices.EmoDB):
    "The adapter of study F, and ten given sentences as what is said."

    def row(self, record, dataset):
        row = super().row(record, dataset)
        row.transcript = f'Satz {row.id[-5:-2]} von zehn Sätzen'
        return row


EMODB = Dataset(
    key='emodb',
    source='emodb',
    name='Emo-DB',
    task='emotion_cls',
    question='What emotion is the speaker expressing?',
    instruction='Answer with one word from the following:',
    setting='',
    license='unknown',
    labels=dict(W='anger', E='disgust', A='fear', F='happy', T='sad', N='neutral'),
    options=('anger', 'disgust', 'fear', 'happy', 'sad', 'neutral'),
    language='de',
    text_carries=False,
    seconds=(0.9, 10),
    scripted=True,
)


def test_a_real_set_of_ones_own(shared, tmp_path):
    "Emo-DB: one boredom of which the rule knows nothing is named, no speaker crosses, no sentence costs a row."
    register(EmoDB, EMODB)
    try:
        drop = Choices(drop=('text', 'near_text'))
        result = curate(dict(emodb=shared / 'data' / 'emodb'), tmp_path / 'atlas', drop)
        _, problems = check(result.folder)
    finally:
        del ADAPTERS['emodb'], DATASETS['emodb']
    names = [path.stem for path in (shared / 'data' / 'emodb').rglob('*.wav')]
    bored = [name for name in names if name[5] == 'L']
    assert len(names) == 342 and problems.empty
    told = rejections(result)
    assert len(told) == len(bored) and all("label 'L' is unknown" in r['reason'] for r in told)
    assert kept(result) == {f'emodb/{name}' for name in set(names) - set(bored)}
    assert not any(entry['kind'] == 'person' for entry in result.leakage)
    assert {name[5] for name in names} <= set('WEAFTNL')


def test_real_videos_in_an_old_format(shared):
    "GRID: MPEG-1 pictures and MP2 sound, three seconds each."
    videos = sorted((shared / 'data' / 'grid').rglob('*.mpg'))
    assert len(videos) == 11
    for path in videos[:3]:
        data = path.read_bytes()
        assert format_of(data).name == 'MPEG program stream' and has_sound(data)
        assert count_frames(data) == 75
        assert 2.9 < len(read_audio(data)) / 16_000 < 3.1
        assert 2.9 < duration(data) < 3.1


def test_a_real_computational_sequence(shared):
    "MOSI: one interval of no length and two videos out of order, read as they stand."
    (path,) = (shared / 'data' / 'mosi_csd').rglob('*.csd')
    with open_csd(path) as data:
        spans = {key: read_sequence(data, key, 1)[1] for key in data}
    assert (len(spans), sum(map(len, spans.values()))) == (93, 2_199)
    empty = [span for intervals in spans.values() for span in intervals if span[0] >= span[1]]
    assert len(empty) == 1
    with pytest.raises(Reject, match='does not run forward'):
        _span(empty[0])
    assert sum((np.diff(intervals[:, 0]) < 0).any() for intervals in spans.values()) == 2
