"""Calibrate the offline judge on the real files; no text leaves them:

python benchmarks/judge.py FOLDER

FOLDER has siq2 and intentqa in it. Wrong answers are the options that the sources' authors wrote as wrong. Right
answers in other words are not in the files, so they are made by rule: words of feeling in a right answer are exchanged
for words of the same meaning. Exchanged for their opposites they make contradictions. Half the videos choose the
threshold, the other half say how well it does."""

import csv
import json
import re
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from omnisapiens_nb.evaluation.judge_agreement import agreement
from omnisapiens_nb.evaluation.similarity import cosines, minilm
from omnisapiens_nb.runs.machine import facts

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
    (r'\bbecause\b', 'since'),
    (r'\bthinks\b', 'believes'),
    (r'\btalking\b', 'speaking'),
    (r'^The (?:man|guy|boy) (?=is|feels|seems|looks|was)', 'He '),
    (r'^The (?:woman|lady|girl) (?=is|feels|seems|looks|was)', 'She '),
)
WORD = re.compile(rf'\b(?:{"|".join(FEELINGS)})\b')
USUAL = 0.9  # The threshold of `similarity_accuracy`


def reworded(text):
    "The same in other words; None if no word of feeling is in it."
    if not WORD.search(text):
        return None

    def same_meaning(found):
        same, _ = FEELINGS[found[0]]
        return same

    said = WORD.sub(same_meaning, text)
    for old, new in FORMS:
        said = re.sub(old, new, said)
    return said


def contradicted(text):
    "Its opposite; None if no word of feeling is in it."
    if not WORD.search(text):
        return None

    def opposite(found):
        _, other = FEELINGS[found[0]]
        return other

    return WORD.sub(opposite, text, count=1)


def siq2_rows(folder):
    "Answered questions of Social-IQ."
    for name in ('qa_train', 'qa_val'):
        lines = (folder / 'siq2' / 'qa' / f'{name}.json').read_text(encoding='utf-8').splitlines()
        yield from map(json.loads, lines)


def siq2_pairs(folder):
    "Kind, video, answer, reference."
    for row in siq2_rows(folder):
        right = row['ans_corr']
        pairs = [('reworded', reworded(right)), ('contradicted', contradicted(right))]
        pairs += [(kind, row[f'a{i}']) for i, kind in enumerate(row['idx_types']) if kind != 'corr']
        for kind, said in pairs:
            if said:
                yield kind, row['vid_name'], said, right


def intentqa_pairs(folder):
    "Kind, video, answer, reference."
    for name in ('val', 'test'):
        path = folder / 'intentqa' / 'datasets' / 'IntentQA' / f'{name}.csv'
        with path.open(encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file):
                wrong = [i for i in range(5) if str(i) != row['answer']]
                right = row[f'a{row["answer"]}']
                yield from (('intentqa option', row['video_id'], row[f'a{i}'], right) for i in wrong)


def lookups(folder):
    "Rows whose question the released lookup by answer gets wrong: of the Social-IQ rows at hand."
    rows = list(siq2_rows(folder))
    found = {row['ans_corr'].lower(): row['q'] for row in rows}
    wrong = [row for row in rows if found[row['ans_corr'].lower()] != row['q']]
    return dict(rows=len(rows), wrong=len(wrong))


def histogram(cosine):
    "Counts of cosines in bins of .01 from -1 to 1."
    counts, _ = np.histogram(np.clip(cosine, -1, 1), np.linspace(-1, 1, 201))
    return {f'{-1 + i / 100:.2f}': int(n) for i, n in enumerate(counts) if n}


def main(folder):
    begun = time.monotonic()
    folder = Path(folder)
    columns = zip(*siq2_pairs(folder), *intentqa_pairs(folder))
    kind, video, said, reference = (list(column) for column in columns)
    cosine = cosines(said, reference, minilm())
    kind, video = np.array(kind), np.array(video)
    kinds = list(dict.fromkeys(kind))
    truth = kind == 'reworded'
    # Only questions whose right answer could be reworded
    with_feeling = {(v, r) for k, v, r in zip(kind, video, reference) if k == 'reworded'}
    used = np.array([(v, r) in with_feeling for v, r in zip(video, reference)])
    half = np.array([zlib.crc32(v.encode()) % 2 for v in video])  # By video, the same on every machine
    choose = used & (half == 0)
    check = used & (half == 1)

    grid = np.arange(0.3, 1, 0.01).round(2)
    kappas = [agreement(truth[choose], cosine[choose] >= t, resamples=0)['kappa'].value for t in grid]
    threshold = float(grid[int(np.argmax(kappas))])

    def checked(t, wrong):
        "Measures on the other half, with one kind of wrong answers."
        rows = check & (truth | wrong)
        found = agreement(truth[rows], cosine[rows] >= t, list(video[rows]))
        return {name: [round(x, 4) for x in (i.value, i.low, i.high)] for name, i in found.items()}

    def passing(t):
        return {k: round(float((cosine[kind == k] >= t).mean()), 4) for k in kinds}

    def size(rows):
        return dict(right=int(truth[rows].sum()), wrong=int((~truth[rows]).sum()), videos=len(set(video[rows])))

    against = dict(all=~truth, **{k: kind == k for k in ('matched', 'rewrite', 'contradicted')})
    of_grid = [[float(t), round(kappa, 4)] for t, kappa in zip(grid, kappas)]
    found = dict(
        threshold=threshold,
        pairs={k: int((kind == k).sum()) for k in kinds},
        lookups=lookups(folder),
        chosen_on=size(choose) | dict(kappa=of_grid),
        checked_on=size(check),
        agreement={
            f'{t:.2f}': {name: checked(t, wrong) for name, wrong in against.items()} for t in (threshold, USUAL)
        },
        passing={f'{t:.2f}': passing(t) for t in (threshold, 0.7, 0.8, USUAL)},
        cosines={k: histogram(cosine[kind == k]) for k in kinds},
    )
    run = facts('python benchmarks/judge.py FOLDER', time.monotonic() - begun, **found)
    text = json.dumps(run, separators=(',', ':')).replace('},', '},\n') + '\n'
    (RESULTS / 'judge_calibration.json').write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
