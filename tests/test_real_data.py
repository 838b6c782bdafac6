"The adapters on the real annotation files, against counts made on them by other means."

import csv
import json
from collections import Counter
from dataclasses import replace

import pytest
from conftest import ROOT

from omnisapiens_nb.atlas.curate import Choices, curate
from omnisapiens_nb.atlas.groups import match_key
from omnisapiens_nb.atlas.leakage import Leakage, report
from omnisapiens_nb.atlas.near_text import jaccard, shingles
from omnisapiens_nb.atlas.schema import Row
from omnisapiens_nb.atlas.sources.cremad import Cremad
from omnisapiens_nb.atlas.sources.meld import Meld
from omnisapiens_nb.atlas.sources.mustard import Mustard
from omnisapiens_nb.atlas.sources.siq2 import Siq2
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.evaluation.metrics import similarity_accuracy
from omnisapiens_nb.evaluation.similarity import cosines, minilm


@pytest.fixture(scope='module')
def real(shared, tmp_path_factory):
    sources = {name: shared / 'data' / name for name in ('meld', 'mustard', 'siq2', 'cremad')}
    return curate(sources, tmp_path_factory.mktemp('real') / 'atlas')


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def test_no_row_is_lost(real):
    read = {key: c['read'] for key, c in real.counts.items()}
    assert read == dict(meld_emotion=13_708, meld_senti=13_708, mmsd=690, siq2=2_000 + 943 + 1_715, cremad=7_442)
    assert all(c['read'] == c['kept'] + c['rejected'] for c in real.counts.values())
    assert len(lines(real.folder / 'rejected.jsonl')) == sum(c['rejected'] for c in real.counts.values())


def test_absent_media(real):
    assert real.counts['mmsd']['text_only'] == real.counts['mmsd']['kept'] == 690
    assert real.counts['cremad']['kept'] == 0
    rejected = [r['reason'] for r in lines(real.folder / 'rejected.jsonl') if r['dataset'] == 'cremad']
    reasons = Counter(reason.split(' is ')[1] for reason in rejected if 'broken' not in reason)
    assert list(reasons) == ['not in the folder, and the words alone do not carry the label']


def test_missing_answers_alone_are_rejected(real):
    rejected = [r for r in lines(real.folder / 'rejected.jsonl') if r['dataset'] != 'cremad']
    assert Counter((r['dataset'], r['reason'].split(' at ')[0].split(';')[0]) for r in rejected) == {
        ('siq2', 'the answer is empty'): 1_715,
    }
    assert [note.dataset for note in real.notes if 'has no length' in note.note] == ['meld_emotion', 'meld_senti']


def test_ids_and_answers(real):
    atlases = [open_atlas(real.folder, split) for split in ('train', 'validation', 'test')]
    columns = [a.columns('id', 'answer', 'options', 'task') for a in atlases]
    ids = [i for c in columns for i in c['id']]
    assert len(ids) == len(set(ids)) == sum(c['kept'] for c in real.counts.values())
    assert all(a in o for c in columns for a, o, t in zip(c['answer'], c['options'], c['task']) if t.endswith('_cls'))


def test_groups_stay_in_one_split(real):
    splits = {}
    for split in ('train', 'validation', 'test'):
        for group in open_atlas(real.folder, split).columns('group')['group']:
            splits.setdefault(group, set()).add(split)
    assert max(map(len, splits.values())) == 1


def shared_text(real, left, right):
    "Rows of `left` whose text is in `right`."
    for e in real.leakage:
        if e['kind'] == 'text':
            sides = {(e[s]['dataset'], e[s]['split']): e[f'{s}_count'] for s in ('left', 'right')}
            if sides.keys() == {left, right}:
                return sides[left]
    return 0


def test_known_leakage(real):
    splits = ('train', 'validation', 'test')
    in_train = [shared_text(real, ('mmsd', split), ('meld_emotion', 'train')) for split in splits]
    assert sum(in_train) == 161
    assert shared_text(real, ('meld_emotion', 'test'), ('meld_emotion', 'train')) == 25


def between(rows, near=False):
    "What places share: kind, left and right place to the two counts."
    found = Leakage(near)
    for row in rows:
        found.add(row)

    def place(side):
        return (side['dataset'], side['split'])

    return {
        (e['kind'], place(e['left']), place(e['right'])): (e['left_count'], e['right_count']) for e in report(found)
    }


@pytest.fixture(scope='module')
def meld(shared):
    "Rows of one of MELD's two keys."
    rows = [r for r in Meld(shared / 'data' / 'meld') if isinstance(r, Row)]
    return [r for r in rows if r.dataset == 'meld_emotion']


def test_friends_of_mustard_are_in_meld(shared, meld):
    mustard = list(Mustard(shared / 'data' / 'mustard'))
    friends = [replace(r, split='test') for r in mustard if r.person.startswith('friends:')]
    assert sum(bool(match_key(r.transcript)) for r in friends) == 297
    anywhere = between([*friends, *(replace(r, split='train') for r in meld)])
    assert anywhere['text', ('meld_emotion', 'train'), ('mmsd', 'test')][1] == 162
    in_train = between([*friends, *(r for r in meld if r.split == 'train')])
    assert in_train['text', ('meld_emotion', 'train'), ('mmsd', 'test')][1] == 161


def test_videos_of_social_iqs_test_file_are_elsewhere(shared):
    "Files in place of splits, one row per video."
    rows = {}
    for r in Siq2(shared / 'data' / 'siq2'):
        file = r.source_file.split('_')[1].removesuffix('.json')
        rows[file, r.group] = replace(r, split=file)
    found = between(rows.values())
    assert found['source_video', ('siq2', 'test'), ('siq2', 'train')] == (57, 57)
    assert found['source_video', ('siq2', 'test'), ('siq2', 'val')] == (27, 27)


def test_two_keys_of_a_source_share_every_group(real):
    for split in ('train', 'validation', 'test'):
        columns = open_atlas(real.folder, split).columns('dataset', 'group')
        groups = {}
        for key, group in zip(columns['dataset'], columns['group']):
            groups.setdefault(key, set()).add(group)
        assert groups['meld_emotion'] == groups['meld_senti']


def test_meld_clips_cut_from_the_same_seconds(real):
    "Exactly equal spans are known: 3 test and 2 validation clips have a span of training; overlaps are at least those."
    counts = {}
    for e in real.leakage:
        if e['kind'] == 'span':
            left, right = ((e[side]['dataset'], e[side]['split']) for side in ('left', 'right'))
            counts[left, right] = (e['left_count'], e['right_count'])
    assert counts[('meld_emotion', 'test'), ('meld_emotion', 'train')][0] >= 3
    assert counts[('meld_emotion', 'train'), ('meld_emotion', 'validation')][1] >= 2


def emorynlp(folder):
    "Utterances by id, read without the package."
    texts = {}
    for part in ('dev', 'tst'):
        data = json.loads((folder / 'json' / f'emotion-detection-{part}.json').read_text(encoding='utf-8'))
        scenes = [scene for episode in data['episodes'] for scene in episode['scenes']]
        for scene in scenes:
            texts |= {u['utterance_id']: u['transcript'] for u in scene['utterances']}
    return texts


def test_near_duplicates_of_emorynlp(shared, meld):
    emory = [
        Row(i, 'emorynlp', 'emotion_cls', split='test', group=i, transcript=text)
        for i, text in emorynlp(shared / 'data' / 'emorynlp').items()
    ]
    assert sum(bool(match_key(r.transcript)) for r in emory) == 1_888
    found = between([*(replace(r, split='train') for r in meld), *emory], near=True)
    places = (('emorynlp', 'test'), ('meld_emotion', 'train'))
    assert found['text', *places][0] == 475
    logged = json.loads((ROOT / 'nbs' / 'results' / 'real_atlas.json').read_text())['emorynlp']['at_least']['0.70']
    assert found['near_text', *places][0] == logged > 475


def test_pairs_checked_by_hand_are_those_of_the_files(shared):
    emory = emorynlp(shared / 'data' / 'emorynlp')
    texts = {r.id: r.transcript for r in Meld(shared / 'data' / 'meld') if isinstance(r, Row)}
    pairs = list(csv.DictReader((ROOT / 'nbs' / 'results' / 'near_text_checked.csv').open()))
    assert len(pairs) == 50
    for pair in pairs:
        left, right = (shingles(match_key(text)) for text in (emory[pair['emorynlp']], texts[pair['meld']]))
        assert jaccard(left, right) == pytest.approx(float(pair['similarity']), abs=1e-4)


def test_nothing_of_a_test_is_left_in_training_when_dropped(shared, tmp_path):
    folders = {name: shared / 'data' / name for name in ('meld', 'mustard')}
    kinds = ('text', 'near_text', 'span', 'context')
    dropped = curate(folders, tmp_path / 'atlas', Choices(drop=kinds))
    assert all(c['read'] == c['kept'] + c['rejected'] for c in dropped.counts.values())
    assert not [e for e in dropped.leakage if e['kind'] in kinds and e['left']['split'] != e['right']['split']]
    rejected = lines(dropped.folder / 'rejected.jsonl')
    gone = [r for r in rejected if r['reason'].startswith('dropped')]
    assert len(gone) == len(rejected)
    for r in gone:
        assert r['dataset'] == 'mmsd' or '/train/' in r['id'] or '/validation/' in r['id']
    test = open_atlas(dropped.folder, 'test').columns('dataset')['dataset']
    assert test.count('meld_emotion') == 2_610
    assert not [r for r in gone if r['id'].startswith('meld') and '/test/' in r['id']]


def test_crowd_and_intention(shared):
    "What most heard in the voice, recounted from the table; clips over which the crowd is split have no label."
    letter = dict(ANG='A', DIS='D', FEA='F', HAP='H', NEU='N', SAD='S')
    votes = list(csv.DictReader((shared / 'data' / 'cremad' / 'processedResults' / 'summaryTable.csv').open()))
    heard = [r for r in Cremad(shared / 'data' / 'cremad', rules=dict(cremad='crowd')) if isinstance(r, Row)]
    assert len(heard) == sum(':' not in v['VoiceVote'] for v in votes) == 7_442 - 644
    assert sum(letter[r.id.split('_')[2]] == letter[r.raw_label] for r in heard) == 3_099


def test_wrong_options_of_social_iq_rarely_pass_as_right(shared):
    right = []
    wrong = []
    for r in lines(shared / 'data' / 'siq2' / 'qa' / 'qa_val.json')[:200]:
        options = [r[f'a{i}'] for i in range(4)]
        answer = options.pop(r['answer_idx'])
        right += [answer] * len(options)
        wrong += options
    found = cosines(wrong, right, minilm())
    assert similarity_accuracy(found) < 0.05
    assert similarity_accuracy(found, 0.7) > 1 / 6
