"""Calibrate the offline judge on the real files (no text leaves them): python benchmarks/judge.py FOLDER, with
siq2 and intentqa in it

Wrong answers are the options that the sources' authors wrote as wrong. Right answers in other words are not in
the files, so
they are made by rule: words of feeling in a right answer are exchanged for words of the same meaning. Exchanged
for their
opposites they make contradictions. Half the videos choose the threshold, the other half say how well it does.
"""

import csv
import json
import re
import sys
import zlib
from pathlib import Path

import numpy as np

from omnisapiens_nb.evaluation.judge_agreement import agreement
from omnisapiens_nb.evaluation.similarity import cosines, minilm

RESULTS = Path(__file__).parents[1] / 'nbs' / 'results'
FEELINGS = dict(  # Word: same meaning, opposite
    happy=('glad', 'unhappy'),
    sad=('unhappy', 'happy'),
    angry=('mad', 'calm'),
    upset=('distressed', 'pleased'),
    scared=('frightened', 'relaxed'),
    afraid=('scared', 'unafraid'),
    nervous=('anxious', 'relaxed'),
    confused=('puzzled', 'certain'),
    surprised=('astonished', 'unsurprised'),
    excited=('thrilled', 'bored'),
    annoyed=('irritated', 'delighted'),
    friendly=('amicable', 'hostile'),
    funny=('amusing', 'boring'),
    amused=('entertained', 'bored'),
    worried=('concerned', 'unconcerned'),
    serious=('earnest', 'playful'),
    disappointed=('let down', 'satisfied'),
    uncomfortable=('ill at ease', 'comfortable'),
    comfortable=('at ease', 'uncomfortable'),
    frustrated=('exasperated', 'content'),
    shocked=('stunned', 'unmoved'),
    relaxed=('at ease', 'tense'),
    bored=('uninterested', 'fascinated'),
    polite=('courteous', 'rude'),
    rude=('impolite', 'polite'),
    agrees=('concurs', 'disagrees'),
    likes=('is fond of', 'dislikes'),
    enjoying=('taking pleasure in', 'hating'),
    skeptical=('doubtful', 'convinced'),
    tense=('strained', 'relaxed'),
)
FORMS = (
    ('because', 'since'),
    ('thinks', 'believes'),
    ('talking', 'speaking'),
    (r'^The (?:man|guy|boy) (?=is|feels|seems|looks|was)', 'He '),
    (r'^The (?:woman|lady|girl) (?=is|feels|seems|looks|was)', 'She '),
)
WORD = re.compile(rf'\b(?:{"|".join(FEELINGS)})\b')


def reworded(text):
    "The same in other words; None if no word of feeling is in it."
    if not WORD.search(text):
        return None
    said = WORD.sub(lambda m: FEELINGS[m[0]][0], text)
    for old, new in FORMS:
        said = re.sub(rf'\b{old}\b' if old.isalpha() else old, new, said)
    return said


def contradicted(text):
    "Its opposite; None if no word of feeling is in it."
    return WORD.sub(lambda m: FEELINGS[m[0]][1], text, count=1) if WORD.search(text) else None


def siq2_pairs(folder):
    "Kind, video, answer, reference."
    for name in ('qa_train', 'qa_val'):
        for line in (folder / 'siq2' / 'qa' / f'{name}.json').read_text(encoding='utf-8').splitlines():
            r = json.loads(line)
            made = [('reworded', reworded(r['ans_corr'])), ('contradicted', contradicted(r['ans_corr']))]
            written = [(kind, r[f'a{i}']) for i, kind in enumerate(r['idx_types']) if kind != 'corr']
            yield from ((kind, r['vid_name'], said, r['ans_corr']) for kind, said in made + written if said)


def intentqa_pairs(folder):
    "Kind, video, answer, reference."
    for name in ('val', 'test'):
        with (folder / 'intentqa' / 'datasets' / 'IntentQA' / f'{name}.csv').open(encoding='utf-8', newline='') as f:
            yield from (
                ('intentqa option', r['video_id'], r[f'a{i}'], r[f'a{r["answer"]}'])
                for r in csv.DictReader(f)
                for i in range(5)
                if str(i) != r['answer']
            )


def lookups(folder):
    "Rows whose question the released lookup by answer gets wrong: of the Social-IQ rows at hand."
    rows = [
        json.loads(l)
        for n in ('qa_train', 'qa_val')
        for l in (folder / 'siq2' / 'qa' / f'{n}.json').read_text(encoding='utf-8').splitlines()
    ]
    found = {r['ans_corr'].lower(): r['q'] for r in rows}
    return dict(rows=len(rows), wrong=sum(found[r['ans_corr'].lower()] != r['q'] for r in rows))


def histogram(c):
    "Counts of cosines in bins of .01 from -1 to 1."
    counts, _ = np.histogram(np.clip(c, -1, 1), np.linspace(-1, 1, 201))
    return {f'{-1 + i / 100:.2f}': int(n) for i, n in enumerate(counts) if n}


def main(folder):
    folder = Path(folder)
    kind, video, said, reference = map(list, zip(*siq2_pairs(folder), *intentqa_pairs(folder)))
    kind, video, c = np.array(kind), np.array(video), cosines(said, reference, minilm())
    with_feeling = {(v, r) for k, v, r in zip(kind, video, reference) if k == 'reworded'}
    used = np.array([(v, r) in with_feeling for v, r in zip(video, reference)])
    half = np.array([zlib.crc32(v.encode()) % 2 for v in video])  # By video, the same on every machine
    truth, grid = kind == 'reworded', np.arange(0.3, 1, 0.01).round(2)
    choose, check = used & (half == 0), used & (half == 1)
    kappas = [agreement(truth[choose], c[choose] >= t, resamples=0)['kappa'].value for t in grid]
    threshold = float(grid[int(np.argmax(kappas))])
    against = dict(all=~truth, **{k: kind == k for k in ('matched', 'rewrite', 'contradicted')})

    def score(t, wrong):
        m = check & (truth | wrong)
        return {
            name: [round(x, 4) for x in (i.value, i.low, i.high)]
            for name, i in agreement(truth[m], c[m] >= t, list(video[m])).items()
        }

    facts = dict(
        command='python benchmarks/judge.py FOLDER',
        threshold=threshold,
        pairs={k: int((kind == k).sum()) for k in dict.fromkeys(kind)},
        lookups=lookups(folder),
        chosen_on=dict(
            right=int(truth[choose].sum()),
            wrong=int((~truth[choose]).sum()),
            videos=len(set(video[choose])),
            kappa=[[float(t), round(k, 4)] for t, k in zip(grid, kappas)],
        ),
        checked_on=dict(right=int(truth[check].sum()), wrong=int((~truth[check]).sum()), videos=len(set(video[check]))),
        agreement={f'{t:.2f}': {name: score(t, wrong) for name, wrong in against.items()} for t in (threshold, 0.9)},
        passing={
            f'{t:.2f}': {k: round(float((c[kind == k] >= t).mean()), 4) for k in dict.fromkeys(kind)}
            for t in (threshold, 0.7, 0.8, 0.9)
        },
        cosines={k: histogram(c[kind == k]) for k in dict.fromkeys(kind)},
    )
    (RESULTS / 'judge_calibration.json').write_text(
        json.dumps(facts, separators=(',', ':')).replace('},', '},\n') + '\n', encoding='utf-8'
    )


if __name__ == '__main__':
    main(*sys.argv[1:])
