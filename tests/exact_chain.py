"""From sources to a report in the current folder: exact_chain.py SOURCES (see test_exact.py)"""

import sys
from pathlib import Path

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.evaluation.evaluate import evaluate
from omnisapiens_nb.rl.loop import RLConfig
from omnisapiens_nb.runs.predict import run_predict
from omnisapiens_nb.runs.train import RLRecipe, SFTRecipe, run_rl, run_sft, start_model
from omnisapiens_nb.sft.warmstart import SFTConfig

FEW = dict(steps=2, prompts=4, rollouts=2, max_new_tokens=8)


def main(sources):
    atlas = Path('atlas')
    curate({name: sources / name for name in ('cremad', 'mustard', 'siq2')}, atlas)
    start_model(atlas, Path('start'))
    run_sft(SFTRecipe(atlas=atlas, out=Path('sft'), model='start', train=SFTConfig(steps=4, batch=8)))
    run_rl(RLRecipe(atlas=atlas, out=Path('rl'), model='sft', train=RLConfig(**FEW)))
    run_predict('rl', atlas, 'test', Path('rl.jsonl'), 8, max_new_tokens=8)
    evaluate(atlas, {'rl': Path('rl.jsonl')}, Path('report'))


if __name__ == '__main__':
    main(Path(sys.argv[1]))
