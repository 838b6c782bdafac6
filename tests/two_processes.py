"""Run by torchrun on two processes: two_processes.py FOLDER

FOLDER holds an atlas and a base model (see test_two_processes.py)."""

import json
import sys
from pathlib import Path

from transformers import TrainerCallback
from trl import SFTConfig

from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl.loop import leave_ranks
from omnisapiens_nb.sft.batches import Examples, choose_rows
from omnisapiens_nb.sft.model import load_model
from omnisapiens_nb.sft.trl_trainer import OmniSFTTrainer, trl_sft

DESCENT = dict(
    num_train_epochs=1,
    optim='sgd',
    learning_rate=1.0,
    max_grad_norm=0.0,
    lr_scheduler_type='constant',
    gradient_accumulation_steps=2,
)
STEPS = dict(
    max_steps=8,
    learning_rate=2e-3,
    save_strategy='steps',
    save_steps=5,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
)


class Lost(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 7:
            raise InterruptedError


def settings(folder, **kwargs):
    common = dict(use_cpu=True, bf16=False, save_strategy='no', disable_tqdm=True, logging_steps=1)
    return SFTConfig(str(folder), **common | kwargs)


def some(folder, processor, per_signature):
    "The first rows of words, and the first with video and sound."
    atlas = open_atlas(folder / 'atlas')
    signatures = atlas.columns('modality_signature')['modality_signature']
    chosen = []
    for signature in ('text', 'text_video_audio'):
        rows = [row for row in choose_rows(atlas) if signatures[row] == signature]
        chosen += rows[:per_signature]
    return Examples(atlas, processor, chosen)


def train(folder, name, per_signature, **kwargs):
    model, processor = load_model(folder / 'base', device='cpu')
    examples = some(folder, processor, per_signature)
    return trl_sft(model, processor, examples, settings(folder / name, **kwargs), resume=name == 'lost')


def dealt(trainer):
    "The positions in each batch of this process."
    batches = trainer.get_train_dataloader().batch_sampler
    return [[trainer.train_dataset[i]['row'] for i in batch] for batch in batches]


def main(folder):
    train(folder, 'two', 4, per_device_train_batch_size=2, **DESCENT)
    trainer = train(folder, 'whole', 9, **STEPS)
    (folder / f'dealt{trainer.accelerator.process_index}.json').write_text(json.dumps(dealt(trainer)))
    model, processor = load_model(folder / 'base', device='cpu')
    lost = OmniSFTTrainer(model, processor, some(folder, processor, 9), settings(folder / 'lost', **STEPS))
    lost.add_callback(Lost())
    try:
        lost.train()
    except InterruptedError:
        train(folder, 'lost', 9, **STEPS)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
    leave_ranks()
