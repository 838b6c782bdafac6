"""Many rows through the command line, with processor seconds and peak memory: python benchmarks/load.py

A million rows of words go through `curate` and `check`, and 200,000 predictions through `evaluate`. Each command is a
process of its own; the system says what it took. The result is nbs/results/load.csv."""

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from whole_report import SIZES, rows

from omnisapiens_nb.atlas.datasets import DATASETS
from omnisapiens_nb.atlas.store import StoreWriter

ROOT = Path(__file__).parents[1]
RESULT = ROOT / 'nbs' / 'results' / 'load.csv'
ROWS = (250_000, 500_000, 1_000_000)  # Of the Atlas; MELD makes two of each line
PREDICTIONS = (50_000, 100_000, 200_000)
FILES = dict(train=0.8, dev=0.1, test=0.1)  # MELD's tables, and their shares of the lines
TURNS = 10  # Of a dialogue
SCENES = 50  # Of an episode, each a dialogue
COLUMNS = 'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime'.split(
    ','
)
EMOTIONS = dict(neutral='neutral', joy='positive', anger='negative', sadness='negative', surprise='positive')
SYLLABLES = 'ba ce di fo gu la me ni po ru sa te vi xo zu ber cal den fin gor'.split()
WORDS = [''.join(parts) for parts in product(SYLLABLES, repeat=3)]
MEBIBYTE = 1 << 10  # In the system's unit of memory, 1024 bytes
SKILL = 0.7  # How often an answer is known


def remark(rng: random.Random) -> str:
    "Some words; frequent ones more often, as in speech."
    count = rng.randint(4, 20)
    return ' '.join(WORDS[int(len(WORDS) ** rng.random())] for _ in range(count))


def write_meld(
    folder: Path,  # Gets MELD's three tables
    lines: int,  # Together
):
    "A folder of dialogues without videos, in MELD's format."
    folder.mkdir(parents=True)
    rng = random.Random(0)
    for name, share in FILES.items():
        with (folder / f'{name}_sent_emo.csv').open('w', newline='', encoding='utf-8') as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for number in range(round(lines * share)):
                emotion, sentiment = rng.choice(list(EMOTIONS.items()))
                dialogue, turn = divmod(number, TURNS)
                seconds = [f'00:{dialogue % SCENES:02}:{3 * turn + offset:02},000' for offset in (0, 3)]
                place = (dialogue, turn, name, dialogue // SCENES, *seconds)
                writer.writerow([number + 1, remark(rng), f'Speaker {number % 7}', emotion, sentiment, *place])


def write_answers(
    folder: Path,  # Gets an Atlas and a file of predictions
    count: int,  # Predictions, about
) -> tuple[Path, Path]:  # Atlas and predictions
    "Rows with labels and the answers of one model, without open answers, which would need a model to be scored."
    rng = np.random.default_rng(0)
    labelled = {key for key in SIZES if DATASETS[key].options}
    times = -(-count // sum(SIZES[key] for key in labelled))
    writer = StoreWriter(folder / 'atlas')
    file = folder / 'model.jsonl'
    left = count
    with file.open('w', encoding='utf-8') as answers:
        for row in _labelled(rows('test', times, rng), labelled):
            if not left:
                break
            left -= 1
            writer.add(row)
            said = row.answer if rng.random() < SKILL else str(rng.choice(row.options))
            answers.write(json.dumps(dict(id=row.id, response=f'\\boxed{{{said}}}')) + '\n')
    writer.finish()
    return folder / 'atlas', file


def _labelled(found: Iterator, keys: set[str]) -> Iterator:
    "Rows of these datasets, dealt evenly, so that the first ones are of all of them."
    kept = [row for row in found if row.dataset in keys]
    random.Random(0).shuffle(kept)
    return iter(kept)


def taken(*words) -> dict:  # Processor seconds and mebibytes
    "What a command took, by the system."
    command = [sys.executable, '-m', 'omnisapiens_nb.cli', *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ | dict(OMP_NUM_THREADS='1'))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f'{words[0]} ended with {process.returncode}')
    return dict(seconds=round(usage.ru_utime + usage.ru_stime, 1), mebibytes=round(usage.ru_maxrss / MEBIBYTE))


def measure(folder: Path) -> Iterator[dict]:
    "A row for each command and size."
    for count in ROWS:
        source = folder / f'meld{count}'
        write_meld(source, count // 2)
        atlas = folder / f'atlas{count}'
        yield dict(command='curate', rows=count, **taken('curate', '--source', f'meld={source}', '--out', atlas))
        yield dict(command='check', rows=count, **taken('check', atlas))
    for count in PREDICTIONS:
        atlas, answers = write_answers(folder / f'answers{count}', count)
        words = ('--atlas', atlas, '--predictions', answers, '--out', folder / f'report{count}')
        yield dict(command='evaluate', rows=count, **taken('evaluate', *words))


def main():
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for row in measure(Path(folder)):
            sys.stderr.write(f'{row}\n')
            found.append(row | dict(made_by='python benchmarks/load.py', cores=os.cpu_count()))
    pd.DataFrame(found).to_csv(RESULT, index=False)


if __name__ == '__main__':
    main()
