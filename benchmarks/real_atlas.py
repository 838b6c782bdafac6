"Counts on the real annotation files (no text leaves them): python benchmarks/real_atlas.py FOLDER, with one folder per source in it"

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
SOURCES = ('meld', 'mustard', 'siq2', 'cremad', 'mmpsy', 'intentqa')


def votes(folder):
    "Clips by intended emotion and vote, for voice, face and both; a split vote is 'tie'."
    intended = {
        r.data['Filename']: r.data['Filename'].split('_')[2]
        for r in read_csv(folder, 'SentenceFilenames.csv', ('Filename',))
    }
    return {
        name: [
            [emotion, vote, n]
            for (emotion, vote), n in sorted(
                Counter((intended[clip], 'tie' if ':' in v else v) for clip, v in read_votes(folder, column)).items()
            )
        ]
        for name, column in dict(voice='VoiceVote', face='FaceVote', both='MultiModalVote').items()
    }


def emotion_and_sentiment(folder):
    "Utterances of MELD by emotion and sentiment."
    pairs = Counter(
        (r.data['Emotion'], r.data['Sentiment'])
        for file, _ in MELD_FILES.values()
        for r in read_csv(folder, file, ('Emotion', 'Sentiment'))
    )
    return [[e, s, n] for (e, s), n in sorted(pairs.items())]


def levels(folder):
    "People of MMPsy by questionnaire, level in the file and whether the score is 10 or more."
    people = json.loads((folder / 'wav_select.json').read_text(encoding='utf-8'))
    return [
        [q, level, positive, n]
        for (q, level, positive), n in sorted(
            Counter(
                (q, p[f'{q}-label']['level'], p[f'{q}-label']['score'] >= 10) for p in people for q in ('phq', 'gad')
            ).items()
        )
    ]


def emorynlp(folder):
    "Utterance id and text of EmoryNLP's development and test files."
    for part in ('dev', 'tst'):
        data = json.loads((folder / 'json' / f'emotion-detection-{part}.json').read_text(encoding='utf-8'))
        yield from (
            (u['utterance_id'], u['transcript']) for e in data['episodes'] for s in e['scenes'] for u in s['utterances']
        )


def labels(folder):
    "Rows of every key whose files are whole here, by split and label, before media are asked for."
    rows = (
        r
        for kind, name in ((Meld, 'meld'), (Mustard, 'mustard'), (Cremad, 'cremad'))
        for r in kind(folder / name)
        if isinstance(r, Row)
    )
    counts = {}
    for r in rows:
        counts.setdefault(r.dataset, {}).setdefault(r.answer, Counter())[r.split] += 1
    return {
        key: {label: [found[label][s] for s in SPLITS] for label in DATASETS[key].options}
        for key, found in counts.items()
    }


def near(folder):
    "How many of EmoryNLP's utterances have a match in MELD at each similarity, and the best match that is not exact of each."
    meld = {
        key: row.id
        for row in Meld(folder / 'meld')
        if isinstance(row, Row) and row.dataset == 'meld_emotion' and (key := match_key(row.transcript))
    }
    other = {i: key for i, text in emorynlp(folder / 'emorynlp') if (key := match_key(text))}
    texts = sorted({*meld, *other.values()})
    best = {key: (1.0, key) for key in other.values() if key in meld}
    for i, j, s in zip(*near_pairs(texts, 0.5)):
        for left, right in ((texts[i], texts[j]), (texts[j], texts[i])):
            if right in meld and s > best.get(left, (0,))[0]:
                best[left] = float(s), right
    found = [(i, *best[key]) for i, key in other.items() if key in best]
    counts = {f'{t:.2f}': sum(s >= t for _, s, _ in found) for t in (1, 0.9, 0.8, 0.7, 0.6, 0.5)}
    close = sorted({(-s, other[i], meld[m], i) for i, s, m in found if other[i] != m})
    once = {key: (i, m, -s) for s, key, m, i in reversed(close)}
    return len(other), sum(key in meld for key in other.values()), counts, sorted(once.values(), key=lambda x: -x[2])


def main(folder):
    folder = Path(folder)
    result = curate({name: folder / name for name in SOURCES}, Path(tempfile.mkdtemp()) / 'atlas', Choices())
    of, exact, counts, close = near(folder)
    facts = dict(
        command='python benchmarks/real_atlas.py FOLDER',
        counts=result.counts,
        labels=labels(folder),
        cremad_votes=votes(folder / 'cremad'),
        meld=emotion_and_sentiment(folder / 'meld'),
        mmpsy_levels=levels(folder / 'mmpsy'),
        emorynlp=dict(utterances=of, exact=exact, at_least=counts),
        leakage=[{k: v for k, v in e.items() if k != 'examples'} for e in result.leakage],
    )
    (RESULTS / 'real_atlas.json').write_text(
        json.dumps(facts, indent=None, separators=(',', ':')).replace('},{', '},\n{') + '\n', encoding='utf-8'
    )
    checked = RESULTS / 'near_text_checked.csv'
    verdicts = (
        pd.read_csv(checked, dtype=str).set_index(['emorynlp', 'meld']).same.to_dict() if checked.exists() else {}
    )
    pd.DataFrame(
        [dict(emorynlp=i, meld=m, similarity=round(s, 4), same=verdicts.get((i, m), '')) for i, m, s in close[:50]]
    ).to_csv(checked, index=False)


if __name__ == '__main__':
    main(*sys.argv[1:])
