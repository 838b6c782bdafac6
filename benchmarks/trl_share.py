"""What HARPO costs of a step of TRL: seconds of the estimator, its tasks and its metrics, beside the whole step.

python benchmarks/trl_share.py OUT.json [STEPS]

The tiny model, 16 prompts x 5 rollouts of 32 tokens, three tasks, one update per generation, on a CPU.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import trl

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl.trl_trainer import HarpoTrainer, OmniHarpoTrainer, atlas_prompts
from omnisapiens_nb.sft.batches import Examples, choose_rows
from omnisapiens_nb.sft.model import tiny_model
from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.targets import target_text

ROLLOUTS = 80


def vowels(completions, **columns):
    return [float(sum(c in 'aeiou' for c in answer[0]['content'])) for answer in completions]


def timed(owner, name):
    "The seconds that a method of a class takes, call by call from here on."
    method = getattr(owner, name)
    seconds = []

    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    setattr(owner, name, wrapper)
    return seconds


def small_atlas(folder):
    write_cremad(folder / 'cremad', actors=5)
    write_mustard(folder / 'mustard', rows=60)
    write_siq2(folder / 'siq2', videos=(12, 1, 1))
    curate({name: folder / name for name in ('cremad', 'mustard', 'siq2')}, folder / 'atlas')
    return open_atlas(folder / 'atlas')


def trainer(folder, steps):
    atlas = small_atlas(folder)
    model, processor = tiny_model(train_tokenizer(row['problem'] + target_text(row) for row in atlas))
    rows = atlas_prompts(Examples(atlas, processor, choose_rows(atlas)))
    mixed = rows.remove_columns('modality_signature')  # All tasks in each generation
    args = trl.GRPOConfig(
        str(folder / 'run'),
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_steps=steps,
        per_device_train_batch_size=ROLLOUTS,
        num_generations=5,
        max_completion_length=32,
        save_strategy='no',
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    return OmniHarpoTrainer(model, vowels, args, mixed, processor)


def main(out, steps='40'):
    run = trainer(Path(tempfile.mkdtemp()), int(steps))
    ours = timed(HarpoTrainer, '_generate_and_score_completions')
    theirs = timed(trl.GRPOTrainer, '_generate_and_score_completions')
    whole = timed(trl.GRPOTrainer, 'training_step')
    with redirect_stdout(StringIO()):
        run.train()
    added = [with_ours - without for with_ours, without in zip(ours, theirs, strict=True)]
    shares = [seconds / step for seconds, step in zip(added, whole, strict=True)]
    low, *_, high = statistics.quantiles(shares, n=20)
    facts = dict(
        command=f'python benchmarks/trl_share.py OUT.json {steps}',
        steps=len(shares),
        rollouts=ROLLOUTS,
        seconds_per_step=statistics.median(whole),
        seconds_of_harpo=statistics.median(added),
        share_median=statistics.median(shares),
        share_5_percent=low,
        share_95_percent=high,
        machine=platform.machine(),
        torch=version('torch'),
        trl=version('trl'),
    )
    Path(out).write_text(json.dumps(facts, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
