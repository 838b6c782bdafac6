"Predictions that are the references, for a judge to be asked about: right_answers.py ATLAS OUT"

import json
import sys
from pathlib import Path

from omnisapiens_nb.atlas.store import open_atlas

atlas, out = sys.argv[1:]
columns = open_atlas(atlas, 'test').columns('id', 'answer')
lines = [json.dumps(dict(id=i, response=f'\\boxed{{{a}}}')) for i, a in zip(columns['id'], columns['answer'])]
Path(out).write_text('\n'.join(lines) + '\n', encoding='utf-8')
