"""Weights spread over two processes on a CPU: sharded_runs.py FOLDER KIND=NAME …, by `accelerate launch` or alone.

FOLDER holds an atlas and a base model (see test_sharded.py). accelerate turns FSDP on for accelerators alone; that one
branch is opened for a CPU here, and all behind it is accelerate's, torch's and ours."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import torch
import trl
from accelerate.state import AcceleratorState, DistributedType, PartialState
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl.loop import leave_ranks
from omnisapiens_nb.rl.trl_trainer import OmniHarpoTrainer, atlas_prompts
from omnisapiens_nb.sft.batches import Examples, choose_rows
from omnisapiens_nb.sft.model import load_model
from omnisapiens_nb.sft.trl_trainer import OmniSFTTrainer, last_checkpoint

ROWS = 8  # Per pass, in all processes together
DESCENT = dict(optim='sgd', max_grad_norm=0.0, max_steps=3)  # Weights show the gradient


def open_to_a_cpu():
    "What AcceleratorState does with a plugin of FSDP on an accelerator, on a CPU too."
    begin = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state['distributed_type'] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = init


def zero(stage):
    """DeepSpeed in place of FSDP, where it is installed: `ZERO_STAGE=2 DS_ACCELERATOR=cpu torchrun --standalone
    --nproc_per_node 2 tests/sharded_runs.py FOLDER taught=zero`; the first run builds a piece of it with a compiler."""
    spread = dict(stage=stage, stage3_gather_16bit_weights_on_model_save=True)
    asked = ('train_micro_batch_size_per_gpu', 'gradient_accumulation_steps', 'gradient_clipping')
    as_the_trainer = dict.fromkeys(asked, 'auto')
    return as_the_trainer | dict(zero_optimization=spread, zero_allow_untested_optimizer=True)


def processes():
    return int(os.environ.get('WORLD_SIZE', 1))


def settings(kind, folder, **more):
    common = dict(use_cpu=True, bf16=False, disable_tqdm=True, report_to=[], logging_steps=1, save_strategy='no')
    common |= dict(per_device_train_batch_size=ROWS // processes(), learning_rate=1e-2, lr_scheduler_type='constant')
    if 'ZERO_STAGE' in os.environ:
        common |= dict(deepspeed=zero(int(os.environ['ZERO_STAGE'])))
    return kind(str(folder), **common | more)


def vowels(completions, **columns):
    return [float(sum(c in 'aeiou' for c in answer[0]['content'])) for answer in completions]


class Told(OmniHarpoTrainer):
    "Completions that follow from prompt and number alone, however many processes there are."

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, **kwargs):
        made = []
        for i, ids in enumerate(prompt_ids):
            seed = hashlib.sha256(str((ids, i % self.num_generations, self.state.global_step)).encode()).digest()
            made.append([50 + byte // 2 for byte in seed[: 3 + seed[0] % 4]])
        return made, None

    def _generate_and_score_completions(self, inputs):
        out = super()._generate_and_score_completions(inputs)
        self.advantages = getattr(self, 'advantages', []) + [out['advantages'].tolist()]
        return out


def rows(folder, processor, count=None):
    atlas = open_atlas(folder / 'atlas')
    return Examples(atlas, processor, choose_rows(atlas)[:count])


def policy(folder, name, kind=Told, **more):
    model, processor = load_model(folder / 'base', 'cpu')
    args = settings(trl.GRPOConfig, folder / name, num_generations=4, max_completion_length=8, **more)
    return kind(model, vowels, args, atlas_prompts(rows(folder, processor)), processor)


class Sharded(TrainerCallback):
    "Whether the weights were spread while a step was made."

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.spread = sum(isinstance(weight, DTensor) for weight in model.parameters())


class Dies(TrainerCallback):
    "All processes end at once, as when a node is lost."

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os._exit(9)


def note(folder, name, trainer, watched, **more):
    losses = [entry['loss'] for entry in trainer.state.log_history if 'loss' in entry]
    norms = [entry['grad_norm'] for entry in trainer.state.log_history if 'grad_norm' in entry]
    found = dict(losses=losses, norms=norms, spread=watched.spread, processes=processes(), **more)
    found |= dict(device=str(trainer.accelerator.device), kind=str(trainer.accelerator.distributed_type))
    (folder / f'{name}{trainer.accelerator.process_index}.json').write_text(json.dumps(found))


def learnt(folder, name, trainer, resume=False):
    watched = Sharded()
    trainer.add_callback(watched)
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / name) if resume else None)
    trainer.save_model(str(folder / name / 'done'))
    more = dict(advantages=getattr(trainer, 'advantages', []), seconds=round(time.monotonic() - began, 1))
    note(folder, name, trainer, watched, **more)


def told(folder, name):
    learnt(folder, name, policy(folder, name, **DESCENT, gradient_accumulation_steps=2, beta=0.1))


def sampled(folder, name):
    "With the rollouts of the sharded policy itself, longer ones in the second process."
    trainer = policy(folder, name, OmniHarpoTrainer, max_steps=2)
    trainer.generation_config.max_new_tokens = 2 + 6 * trainer.accelerator.process_index
    learnt(folder, name, trainer)


SAVED = dict(save_strategy='steps', save_steps=2, max_steps=6)


def whole(folder, name):
    learnt(folder, name, policy(folder, name, **SAVED))


def killed(folder, name):
    trainer = policy(folder, name, **SAVED)
    if last_checkpoint(folder / name):
        return learnt(folder, name, trainer, resume=True)
    trainer.add_callback(Dies())
    trainer.train()


def taught(folder, name):
    model, processor = load_model(folder / 'base', 'cpu')
    args = settings(trl.SFTConfig, folder / name, **DESCENT, gradient_accumulation_steps=2)
    learnt(folder, name, OmniSFTTrainer(model, processor, rows(folder, processor, 24), args))


if __name__ == '__main__':
    open_to_a_cpu()
    for named in sys.argv[2:]:
        torch.manual_seed(0)
        kind, name = named.split('=')
        globals()[kind](Path(sys.argv[1]), name)
    leave_ranks()
