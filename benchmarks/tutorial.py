"""Run the tutorial as users do and record time, memory and scores: python benchmarks/tutorial.py OUT NAME
[--source NAME=FOLDER ...]
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from omnisapiens_nb.evaluation.answers import read_answer
from omnisapiens_nb.runs.machine import facts
from omnisapiens_nb.sft.model import load_model

RESULTS = Path(__file__).parents[1] / 'nbs' / 'results'


def answers(out):
    "How often each label was answered, per model and dataset, and how many answers were right."
    rows = []
    for model in ('sft', 'GRPO', 'HARPO', 'control'):
        lines = pd.read_json(Path(out) / 'predictions' / f'{model}.jsonl', lines=True, dtype=False)
        lines = lines[lines.task.str.endswith('_cls')].assign(answer=lines.response.map(read_answer))
        for dataset, part in lines.groupby('dataset'):
            known = part.answer.where(part.answer.isin(set(part.reference)), 'other')
            rows += [
                dict(
                    model=model,
                    dataset=dataset,
                    rows=len(part),
                    right=int((part.answer == part.reference).sum()),
                    answer=a,
                    times=n,
                )
                for a, n in known.value_counts().items()
            ]
    return pd.DataFrame(rows)


def main(out, name, *sources):
    command = ['omnisapiens-nb', 'tutorial', '--out', out, *sources]
    start = time.monotonic()
    subprocess.run(
        [sys.executable, '-m', 'omnisapiens_nb.cli', *command[1:]],
        check=True,
        env=os.environ | dict(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false'),
    )
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    shown = [
        'omnisapiens-nb',
        'tutorial',
        *(s if s.startswith('--') else f'{s.split("=")[0]}=…/{Path(s).name}' for s in sources),
    ]
    run = facts(
        ' '.join(shown),
        seconds,
        parameters=load_model(Path(out) / 'sft', device='cpu')[0].num_parameters(),
        peak_megabytes=round(peak / 1024),
    )
    (RESULTS / f'{name}_run.json').write_text(json.dumps(run, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    shutil.copy(Path(out) / 'scores.csv', RESULTS / f'{name}_scores.csv')
    answers(out).to_csv(RESULTS / f'{name}_answers.csv', index=False)


if __name__ == '__main__':
    main(*sys.argv[1:])
