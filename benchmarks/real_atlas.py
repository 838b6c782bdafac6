"""Counts on the real annotation files (no text leaves them), with one folder per source in FOLDER:
python benchmarks/real_atlas.py FOLDER"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd

from omnisapiens_nb.atlas.curate import Choices, curate
from omnisapiens_nb.atlas.datasets import DATASETS
from omnisapiens_nb.atlas.groups import match_key
from omnisapiens_nb.atlas.near_text import near_pairs
from omnisapiens_nb.atlas.reading import read_csv
from omnisapiens_nb.atlas.schema import SPLITS, Row
from omnisapiens_nb.atlas.sources.cremad import Cremad, read_votes
from omnisapiens_nb.atlas.sources.meld import MELD_FILES, Meld
from omnisapiens_nb.atlas.sources.mustard import Mustard

RESULTS = Path(__file__).parents[1] / 'nbs' / 'results'
VOTES = dict(voice='VoiceVote', face='FaceVote', both='MultiModalVote')
SIMILARITIES = (1, 0.9, 0.8, 0.7, 0.6, 0.5)
CHECKED = 50  # Closest matches, read by hand
SOURCES = ('meld', 'mustard', 'siq2', 'cremad', 'mmpsy', 'intentqa')


def votes(folder):
    "Clips by intended emotion and vote, for voice, face and both; a split vote is 'tie'."
    clips = [r.data['Filename'] for r in read_csv(folder, 'SentenceFilenames.csv', ('Filename',))]
    intended = {clip: clip.split('_')[2] for clip in clips}
    tables = {}
    for name, column in VOTES.items():
        counts = Counter()
        for clip, vote in read_votes(folder, column):
            counts[intended[clip], 'tie' if ':' in vote else vote] += 1
        tables[name] = rows_of(counts)
    return tables


def rows_of(counts):
    "A count by keys as a sorted table."
    return [[*keys, count] for keys, count in sorted(counts.items())]


def emotion_and_sentiment(folder):
    "Utterances of MELD by emotion and sentiment."
    counts = Counter()
    for file, _ in MELD_FILES.values():
        for r in read_csv(folder, file, ('Emotion', 'Sentiment')):
            counts[r.data['Emotion'], r.data['Sentiment']] += 1
    return rows_of(counts)


def levels(folder):
    "People of MMPsy by questionnaire, level in the file and whether the score is 10 or more."
    people = json.loads((folder / 'wav_select.json').read_text(encoding='utf-8'))
    counts = Counter()
    for person in people:
        for questionnaire in ('phq', 'gad'):
            label = person[f'{questionnaire}-label']
            counts[questionnaire, label['level'], label['score'] >= 10] += 1
    return rows_of(counts)


def emorynlp(folder):
    "Utterance id and text of EmoryNLP's development and test files."
    for part in ('dev', 'tst'):
        data = json.loads((folder / 'json' / f'emotion-detection-{part}.json').read_text(encoding='utf-8'))
        for episode in data['episodes']:
            for scene in episode['scenes']:
                for utterance in scene['utterances']:
                    yield utterance['utterance_id'], utterance['transcript']


def labels(folder):
    "Rows of every key whose files are whole here, by split and label, before media are asked for."
    counts = {}
    for kind, name in ((Meld, 'meld'), (Mustard, 'mustard'), (Cremad, 'cremad')):
        for row in kind(folder / name):
            if isinstance(row, Row):
                counts.setdefault(row.dataset, Counter())[row.answer, row.split] += 1
    return {
        key: {label: [found[label, split] for split in SPLITS] for label in DATASETS[key].options}
        for key, found in counts.items()
    }


def meld_keys(folder):
    "Words of MELD's utterances, normalised, to the last row that has them."
    rows = {}
    for row in Meld(folder):
        if isinstance(row, Row) and row.dataset == 'meld_emotion':
            rows[match_key(row.transcript)] = row.id
    rows.pop('', None)
    return rows


def best_matches(meld, other):
    "Similarity and words of the best match in MELD for each text of EmoryNLP, equal ones included."
    texts = sorted({*meld, *other})
    best = {key: (1.0, key) for key in other if key in meld}
    for i, j, similarity in zip(*near_pairs(texts, min(SIMILARITIES))):
        for left, right in ((texts[i], texts[j]), (texts[j], texts[i])):
            known, _ = best.get(left, (0, ''))
            if right in meld and similarity > known:
                best[left] = float(similarity), right
    return best


def near(folder):
    "How many of EmoryNLP's utterances have a match in MELD at each similarity, and the closest that are not exact."
    meld = meld_keys(folder / 'meld')
    other = {utterance: match_key(text) for utterance, text in emorynlp(folder / 'emorynlp')}
    other = {utterance: key for utterance, key in other.items() if key}
    best = best_matches(meld, other.values())
    found = [(utterance, *best[key]) for utterance, key in other.items() if key in best]
    counts = {f'{least:.2f}': sum(s >= least for _, s, _ in found) for least in SIMILARITIES}
    exact = sum(key in meld for key in other.values())
    return dict(utterances=len(other), exact=exact, at_least=counts), closest(found, meld, other)


def closest(found, meld, other):
    "EmoryNLP id, MELD id and similarity of matches that are not exact, each text once, the closest first."
    close = sorted(
        {(-s, other[utterance], meld[match], utterance) for utterance, s, match in found if other[utterance] != match}
    )
    once = {key: (utterance, row, -s) for s, key, row, utterance in reversed(close)}
    return sorted(once.values(), key=lambda pair: -pair[2])


def write_checked(close):
    "The closest matches, with the verdicts that were given before."
    file = RESULTS / 'near_text_checked.csv'
    verdicts = {}
    if file.exists():
        verdicts = pd.read_csv(file, dtype=str).set_index(['emorynlp', 'meld']).same.to_dict()
    rows = [
        dict(emorynlp=utterance, meld=row, similarity=round(s, 4), same=verdicts.get((utterance, row), ''))
        for utterance, row, s in close[:CHECKED]
    ]
    pd.DataFrame(rows).to_csv(file, index=False)


def main(folder):
    folder = Path(folder)
    result = curate({name: folder / name for name in SOURCES}, Path(tempfile.mkdtemp()) / 'atlas', Choices())
    found, close = near(folder)
    facts = dict(
        command='python benchmarks/real_atlas.py FOLDER',
        counts=result.counts,
        labels=labels(folder),
        cremad_votes=votes(folder / 'cremad'),
        meld=emotion_and_sentiment(folder / 'meld'),
        mmpsy_levels=levels(folder / 'mmpsy'),
        emorynlp=found,
        leakage=[{key: value for key, value in entry.items() if key != 'examples'} for entry in result.leakage],
    )
    text = json.dumps(facts, separators=(',', ':')).replace('},{', '},\n{')  # A line for each entry, for diffs
    (RESULTS / 'real_atlas.json').write_text(text + '\n', encoding='utf-8')
    write_checked(close)


if __name__ == '__main__':
    main(*sys.argv[1:])
