"""Small runs of both trainers, some of them by torchrun, one after the other: rl_runs.py FOLDER KIND=NAME…

FOLDER holds an atlas and a base model (see test_rl_runs.py)."""

import copy
import gc
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
import trl
from datasets import Dataset
from transformers import TrainerCallback

from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl import loop
from omnisapiens_nb.rl.loop import RLConfig, join_ranks, leave_ranks, train_rl, update
from omnisapiens_nb.rl.trl_trainer import OmniHarpoTrainer, atlas_prompts
from omnisapiens_nb.sft.batches import Examples, choose_rows
from omnisapiens_nb.sft.losses import target_ids
from omnisapiens_nb.sft.model import load_model
from omnisapiens_nb.sft.trl_trainer import last_checkpoint

KILLS = 10 if os.environ.get('OMNISAPIENS_ALL') == '1' else 2
DISK = 1 << 20  # Bytes of the largest file on a disk that is full; a checkpoint's weights are larger
QUICKER = 0.8  # A run that ended before it was killed is killed so much earlier next time


def vowels(completions, **columns):
    return [float(sum(c in 'aeiou' for c in answer[0]['content'])) for answer in completions]


def settings(folder, **kwargs):
    common = dict(
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=8,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy='no',
        disable_tqdm=True,
    )
    return trl.GRPOConfig(str(folder), **common | kwargs)


def rows(folder, processor):
    atlas = open_atlas(folder / 'atlas')
    return Examples(atlas, processor, choose_rows(atlas))


def trainer(folder, name, data=None, **kwargs):
    model, processor = load_model(folder / 'base', device='cpu')
    data = atlas_prompts(rows(folder, processor)) if data is None else data
    return OmniHarpoTrainer(model, vowels, settings(folder / name, **kwargs), data, processor)


def facts(run):
    "What a run logged of its generations, without times."
    log = [entry for entry in run.state.log_history if 'reward' in entry]
    kept = ('reward', 'harpo', 'grad_norm')
    return [{key: value for key, value in entry.items() if key.split('/')[0] in kept} for entry in log]


def resumable(folder, name, *callbacks):
    "Twelve steps, a checkpoint after every second, from the last one that is there."
    run = trainer(folder, name, max_steps=12, steps_per_generation=2, save_strategy='steps', save_steps=2)
    for callback in callbacks:
        run.add_callback(callback)
    run.train(resume_from_checkpoint=last_checkpoint(folder / name))
    done = folder / name / 'done'
    run.save_model(str(done))
    ended = dict(log=facts(run), estimator=run.estimator.state_dict())
    (done / 'facts.json').write_text(json.dumps(ended, sort_keys=True))


def question(i, task):
    asked = [dict(type='text', text=f'what is {i}?')]
    return dict(prompt=[dict(role='user', content=asked)], task=task)


def shared(folder, name):
    "Prompts of unequal tasks on two processes, one task on one of them alone: what each process got, and of what."
    data = Dataset.from_list([question(i, task) for i, task in enumerate('aaab')])
    run = trainer(folder, name, data, max_steps=3)
    seen = []
    score = run._generate_and_score_completions

    def noted(inputs):
        out = score(inputs)
        step = dict(
            tasks=[row['task'] for row in inputs],
            rewards=run.generation.rewards[:, 0].tolist(),
            advantages=out['advantages'].tolist(),
        )
        seen.append(step)
        return out

    run._generate_and_score_completions = noted
    run.train()
    found = dict(steps=seen, state=run.estimator.state_dict())
    (folder / f'{name}{run.accelerator.process_index}.json').write_text(json.dumps(found))


def looped(folder, name):
    "The loop on two processes: what each process got, and what it was made of."
    model, processor = load_model(folder / 'base', device='cpu')
    seen = []
    update = loop.update
    step_log = loop.step_log

    def noted(model, processor, optimizer, examples, completions, advantages, *args):
        seen.append(dict(mine=advantages.tolist()))
        update(model, processor, optimizer, examples, completions, advantages, *args)

    def logged(facts, step):
        seen[-1] |= dict(facts=facts, advantages=step.advantages.tolist())
        return step_log(facts, step)

    loop.update = noted
    loop.step_log = logged  # For good: no other run of this process is by `train_rl`
    config = RLConfig(
        estimator='harpo',
        steps=3,
        prompts=5,
        rollouts=4,
        mini_batch=3,
        epochs=2,
        accumulate=2,
        max_new_tokens=8,
        beta=0.01,
    )
    train_rl(model, processor, rows(folder, processor), config)
    weights = float(sum(p.double().abs().sum() for p in model.parameters()))
    (folder / f'{name}{os.environ.get("RANK", 0)}.json').write_text(json.dumps(dict(steps=seen, weights=weights)))


def check_barrier(ranks, file):
    "The first process writes late; the others must find the file all the same."
    if ranks.rank == 0:
        time.sleep(0.5)
        file.touch()
    ranks.barrier()
    assert file.exists(), f'process {ranks.rank} did not wait'


def descended(folder, name):
    "One update on given rollouts, a share of them in each process; the weights after it."
    model, processor = load_model(folder / 'base', device='cpu')
    data = rows(folder, processor)
    ranks = join_ranks()
    check_barrier(ranks, folder / f'{name}_waited_for')
    examples = [data[i] for i in (0, 1, -2, -1) for _ in range(2)]  # Words on one side, videos on the other
    advantages = [1.0, -1.0, 0.5, 0.0, 0.0, 2.0, -0.5, 0.25]
    config = RLConfig(prompts=4, mini_batch=4, rollouts=2, accumulate=2, beta=0.1, max_grad_norm=1e9)
    reference = copy.deepcopy(model)
    with torch.no_grad():
        reference.lm_head.weight.mul_(0.5)
    mine = ranks.share(examples)
    update(
        model,
        processor,
        torch.optim.SGD(model.parameters(), lr=1.0),
        mine,
        target_ids(processor, mine),
        torch.tensor(ranks.share(advantages)),
        config,
        reference,
        ranks,
    )
    torch.save(model.state_dict(), folder / f'{name}{ranks.rank}.pt')


class Full(TrainerCallback):
    "No file may grow beyond a limit from step 5 on, as on a disk that is full."

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, resource.RLIM_INFINITY))


class Ended(TrainerCallback):
    "Killed between the last checkpoint and the saving of the model."

    def on_save(self, args, state, control, **kwargs):
        if state.global_step == state.max_steps:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(run, *args, seconds=None):
    "Run in a child of this process, killed after so many seconds; its exit code, and how long it took."
    child = multiprocessing.get_context('fork').Process(target=run, args=args)
    start = time.monotonic()
    child.start()
    child.join(seconds)
    if child.is_alive():
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return child.exitcode, time.monotonic() - start


def outcome(folder, name, *callbacks):
    "Exit code of a run."
    code, _ = forked(resumable, folder, name, *callbacks)
    return code


def broken_off(folder, name, callback):
    "A run that a callback ends, taken up again: exit code, last checkpoint, exit code."
    broken = outcome(folder, name, callback)
    last = Path(last_checkpoint(folder / name)).name
    return [broken, last, outcome(folder, name)]


def killed_at_random(folder, name, seconds):
    "A run killed while it trains, taken up again: share of its time that it had, exit code, exit code."
    after = random.uniform(0.2, 1) * seconds
    code, _ = forked(resumable, folder, name, seconds=after)
    while code == 0:  # It was quicker than the first
        shutil.rmtree(folder / name)
        after *= QUICKER
        code, _ = forked(resumable, folder, name, seconds=after)
    return [after / seconds, code, outcome(folder, name)]


def killed(folder, name):
    "A run left alone, some killed at random and one at its very end and taken up again, one that met a full disk."
    code, seconds = forked(resumable, folder, 'whole')
    found = dict(whole=[code], ended=broken_off(folder, 'ended', Ended()))
    for i in range(KILLS):
        found[f'killed{i}'] = killed_at_random(folder, f'killed{i}', seconds)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    found['full'] = broken_off(folder, 'full', Full())
    (folder / f'{name}.json').write_text(json.dumps(found))


KINDS = dict(shared=shared, looped=looped, descended=descended, killed=killed)


if __name__ == '__main__':
    gc.freeze()  # As in conftest.py
    for named in sys.argv[2:]:
        kind, name = named.split('=')
        KINDS[kind](Path(sys.argv[1]), name)
    leave_ranks()
