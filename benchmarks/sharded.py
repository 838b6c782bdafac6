"""Weights spread over two processes on a CPU beside one process, and killed and resumed.

What tests/test_sharded.py runs, into nbs/results/sharded.json.

python benchmarks/sharded.py"""

import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'tests'))

from test_sharded import largest_difference, made, noted, run, weights  # noqa: E402

from omnisapiens_nb.runs.machine import facts  # noqa: E402

KINDS = dict(told='reinforcement by TRL', taught='supervised fine-tuning by TRL')


def compared(folder, kind):
    one, ours, theirs = (noted(folder, f'{kind}_{number}') for number in ('one0', 'two0', 'two1'))
    alone = weights(folder / f'{kind}_one' / 'done')
    spread = weights(folder / f'{kind}_two' / 'done')
    gaps = [abs(a - b) for a, b in zip(one['losses'], ours['losses'])]
    told = [a + b for a, b in zip(ours['advantages'], theirs['advantages'])]
    return dict(
        steps=len(one['losses']),
        weights_moved=float(largest_difference(alone, weights(folder / 'base'))),
        largest_difference_of_weights=float(largest_difference(alone, spread)),
        largest_difference_of_losses=max(gaps),
        advantages_equal=told == one['advantages'],
        spread=f'{ours["spread"]} of {len(spread)} weights',
        seconds_alone=one['seconds'],
        seconds_spread=ours['seconds'],
    )


def main():
    began = time.monotonic()
    folder = made(Path(tempfile.mkdtemp()))
    run(folder, 'killed=killed', fails=True)
    run(folder, 'killed=killed')
    found = {KINDS[kind]: compared(folder, kind) for kind in KINDS}
    whole = (folder / 'whole' / 'done' / 'model.safetensors').read_bytes()
    resumed = (folder / 'killed' / 'done' / 'model.safetensors').read_bytes()
    found['killed and resumed'] = dict(equal_bytes=whole == resumed)
    log = facts('python benchmarks/sharded.py', time.monotonic() - began, processes=2, backend='gloo', runs=found)
    (ROOT / 'nbs' / 'results' / 'sharded.json').write_text(json.dumps(log, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
