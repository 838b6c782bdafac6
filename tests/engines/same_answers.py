"""How far two files of predictions agree: same_answers.py ONE OTHER

Both are cut off after the same number of tokens. Where that is in the middle of a character, vLLM leaves its bytes out
and transformers shows a replacement character; that is no difference."""

import json
import sys
from pathlib import Path


def answers(file):
    lines = map(json.loads, Path(file).read_text(encoding='utf-8').splitlines())
    return {line['id']: line['response'].rstrip('\ufffd') for line in lines}


one, other = map(answers, sys.argv[1:])
assert list(one) == list(other), 'other rows, or in another order'
same = sum(one[row] == other[row] for row in one)
print(f'{same} of {len(one)} answers are the same, letter by letter')
