"Whether two finished runs are the same, in every weight and every logged number but time: same_run.py ONE OTHER"

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

TIMES = ('step_time', 'seconds', 'train_runtime')


def weights(folder):
    return {name: tensor for file in Path(folder).glob('*.safetensors') for name, tensor in load_file(file).items()}


def log(folder):
    entries = map(json.loads, (Path(folder) / 'log.jsonl').read_text().splitlines())
    return [{name: value for name, value in entry.items() if name not in TIMES} for entry in entries]


one, other = sys.argv[1:]
ours, theirs = weights(one), weights(other)
assert ours and ours.keys() == theirs.keys()
apart = max((ours[name] - theirs[name]).abs().max().item() for name in ours)
same = sum(a == b for a, b in zip(log(one), log(other), strict=True))
learnt = sum(entry.get('grad_norm', 0) > 0 for entry in log(one))
print(f'{len(ours)} tensors, largest difference {apart}')
print(f'{same} of {len(log(one))} log entries are the same; {learnt} steps had a gradient')
assert learnt > 1, 'nothing was learnt, so nothing was compared'
assert apart == 0 and same == len(log(one))
