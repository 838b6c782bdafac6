"""Two processes of which one has something else, four times: torchrun trl_ranks.py FOLDER (see test_trl_kept.py)."""

import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import trl_tiny as tiny

from omnisapiens_nb.rl import trl_trainer
from omnisapiens_nb.rl.loop import leave_ranks

RANK = int(os.environ['RANK'])
DATA = tiny.rows()
VERSIONS = trl_trainer.versions_here()


def told(args, data=DATA, estimator='harpo'):
    "What a trainer of a model that is nowhere says."
    try:
        trl_trainer.HarpoTrainer('nowhere', tiny.early, args, data, estimator=estimator)
    except ValueError as e:
        return str(e)


def main(folder):
    args = tiny.settings(folder / 'run', max_steps=1)
    found = dict(
        missing=told(args, DATA.remove_columns('task') if RANK else DATA), misspelt=told(args, estimator='hapro')
    )
    if RANK:
        trl_trainer.versions_here = lambda: VERSIONS | dict(trl='0.0')
    found['versions'] = told(args)
    if RANK:
        time.sleep(5)
    else:
        wait = trl_trainer.facts_of_all
        trl_trainer.facts_of_all = lambda mine: wait(mine, timedelta(seconds=2))
        found['absent'] = told(args)
    (folder / f'{RANK}.json').write_text(json.dumps(found))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
    leave_ranks()
