"Rows per second and memory of a curation of text rows on one core, and what the near-duplicate search adds: python benchmarks/curation.py"

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
from pathlib import Path

from omnisapiens_nb.atlas.mini.files import write_table
from omnisapiens_nb.atlas.sources.meld import MELD_COLUMNS, MELD_FILES

RESULTS = Path(__file__).parents[1] / 'nbs' / 'results'
WORDS = [
    f'{a}{b}{c}'
    for a in ('br', 'st', 'm', 'l', 'tr', 'k', 'sh')
    for b in ('a', 'e', 'i', 'o', 'u', 'ou')
    for c in ('nd', 'ck', 'll', 'rt', 'm', 'pe')
]


def write_folder(folder, rows, rng):
    "A folder in MELD's format without clips: half as many utterances as rows, one in fifty a near copy of another."
    lines = [' '.join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(rows // 2)]
    for i in range(0, len(lines), 50):
        lines[i] = lines[i - 1] + ' ' + rng.choice(WORDS)
    per, at = dict(train=0.73, validation=0.08, test=0.19), 0
    for split, (file, _) in MELD_FILES.items():
        part, at = lines[at : at + round(per[split] * len(lines))], at + round(per[split] * len(lines))
        write_table(
            folder / file,
            MELD_COLUMNS,
            [
                [
                    n,
                    line,
                    rng.choice('ABCDEF'),
                    'joy',
                    'positive',
                    n // 10,
                    n % 10,
                    1,
                    n // 2000,
                    f'00:{n // 10 % 60:02}:{n % 60:02},000',
                    f'00:{n // 10 % 60:02}:{n % 60:02},900',
                ]
                for n, line in enumerate(part, 1)
            ],
        )


def one(folder, near):
    "Curate in this process; prints seconds and peak memory above that of the imports."
    from omnisapiens_nb.atlas.curate import Choices, curate

    base, out = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, Path(tempfile.mkdtemp()) / 'atlas'
    start = time.perf_counter()
    counts = curate({'meld': Path(folder)}, out, Choices(near=near == 'near')).counts
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            dict(
                rows=sum(c['read'] for c in counts.values()),
                seconds=seconds,
                megabytes=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024,
            )
        )
    )


def main():
    table = []
    for rows in (25_000, 50_000, 100_000, 200_000):
        folder = Path(tempfile.mkdtemp())
        write_folder(folder, rows, random.Random(rows))
        for near in ('exact', 'near'):
            command = [sys.executable, __file__, folder, near]
            pinned = ['taskset', '-c', '0', *command] if sys.platform == 'linux' else command
            found = json.loads(
                subprocess.run(
                    pinned, check=True, capture_output=True, text=True, env=os.environ | dict(OMP_NUM_THREADS='1')
                ).stdout
            )
            table.append(
                dict(
                    search=near,
                    rows=found['rows'],
                    seconds=round(found['seconds'], 2),
                    rows_per_second=round(found['rows'] / found['seconds']),
                    megabytes=round(found['megabytes']),
                )
            )
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
    one(*sys.argv[1:]) if len(sys.argv) > 1 else main()
