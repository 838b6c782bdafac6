"""Rows per second and memory of a curation of text rows on one core, and what the near-duplicate search adds:
python benchmarks/curation.py"""

import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path

from omnisapiens_nb.atlas.mini.files import write_table
from omnisapiens_nb.atlas.sources.meld import MELD_COLUMNS, MELD_FILES

RESULTS = Path(__file__).parents[1] / 'nbs' / 'results'
SIZES = (25_000, 50_000, 100_000, 200_000)  # Rows
SHARES = dict(train=0.73, validation=0.08, test=0.19)  # As in MELD
NEAR_COPIES = 50  # One line in so many is nearly another's
SYLLABLES = (
    ('br', 'st', 'm', 'l', 'tr', 'k', 'sh'),
    ('a', 'e', 'i', 'o', 'u', 'ou'),
    ('nd', 'ck', 'll', 'rt', 'm', 'pe'),
)
WORDS = [''.join(parts) for parts in product(*SYLLABLES)]


def write_folder(folder, rows, rng):
    "A folder in MELD's format without clips: half as many utterances as rows, since it serves two keys."
    lines = [' '.join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(rows // 2)]
    for i in range(0, len(lines), NEAR_COPIES):
        lines[i] = lines[i - 1] + ' ' + rng.choice(WORDS)
    at = 0
    for split, (file, _) in MELD_FILES.items():
        count = round(SHARES[split] * len(lines))
        part = lines[at : at + count]
        write_table(folder / file, MELD_COLUMNS, [utterance(n, line, rng) for n, line in enumerate(part, 1)])
        at += count


def utterance(number, line, rng):
    "A row of MELD's tables: ten to a dialogue, 2,000 to an episode, a second each."
    dialogue, turn = divmod(number, 10)
    clock = f'00:{dialogue % 60:02}:{number % 60:02}'
    speaker = rng.choice('ABCDEF')
    episode = number // 2000
    return [number, line, speaker, 'joy', 'positive', dialogue, turn, 1, episode, f'{clock},000', f'{clock},900']


def one(folder, near):
    "Curate in this process; prints seconds and peak memory above that of the imports."
    from omnisapiens_nb.atlas.curate import Choices, curate

    out = Path(tempfile.mkdtemp()) / 'atlas'
    before = peak_megabytes()
    start = time.perf_counter()
    counts = curate({'meld': Path(folder)}, out, Choices(near=near == 'near')).counts
    seconds = time.perf_counter() - start
    rows = sum(count['read'] for count in counts.values())
    print(json.dumps(dict(rows=rows, seconds=seconds, megabytes=peak_megabytes() - before)))


def peak_megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder, near):
    "Curate in a process of its own, on one core where the system allows."
    command = [sys.executable, __file__, folder, near]
    if sys.platform == 'linux':
        command = ['taskset', '-c', '0', *command]
    environment = os.environ | dict(OMP_NUM_THREADS='1')
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads(result.stdout)
    return dict(
        search=near,
        rows=found['rows'],
        seconds=round(found['seconds'], 2),
        rows_per_second=round(found['rows'] / found['seconds']),
        megabytes=round(found['megabytes']),
    )


def main():
    table = []
    for rows in SIZES:
        folder = Path(tempfile.mkdtemp())
        write_folder(folder, rows, random.Random(rows))
        for near in ('exact', 'near'):
            table.append(measure(folder, near))
            print(table[-1])
    facts = dict(
        command='python benchmarks/curation.py',
        machine=platform.machine(),
        cores_used=1,
        python=platform.python_version(),
        pyarrow=version('pyarrow'),
        table=table,
    )
    (RESULTS / 'curation.json').write_text(json.dumps(facts, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    if len(sys.argv) > 1:
        one(*sys.argv[1:])
    else:
        main()
