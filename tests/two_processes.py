"""Run by torchrun on two processes: `two_processes.py FOLDER`, where FOLDER holds an atlas and a base model (see
test_two_processes.py).
"""

import json
import sys
from pathlib import Path

from transformers import TrainerCallback
from trl import SFTConfig

from omnisapiens_nb.atlas.store import open_atlas
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
    return SFTConfig(
        str(folder), **dict(use_cpu=True, bf16=False, save_strategy='no', disable_tqdm=True, logging_steps=1) | kwargs
    )


def some(folder, processor, per_signature):
    atlas = open_atlas(folder / 'atlas')
    rows, kinds = choose_rows(atlas), atlas.columns('modality_signature')['modality_signature']
    return Examples(
        atlas,
        processor,
        [r for s in ('text', 'text_video_audio') for r in [r for r in rows if kinds[r] == s][:per_signature]],
    )


def train(folder, name, per_signature, **kwargs):
    model, processor = load_model(folder / 'base', device='cpu')
    return trl_sft(
        model,
        processor,
        some(folder, processor, per_signature),
        settings(folder / name, **kwargs),
        resume=name == 'lost',
    )


def main(folder):
    train(folder, 'two', 4, per_device_train_batch_size=2, **DESCENT)
    trainer = train(folder, 'whole', 9, **STEPS)
    dealt = [[trainer.train_dataset[i]['row'] for i in batch] for batch in trainer.get_train_dataloader().batch_sampler]
    (folder / f'dealt{trainer.accelerator.process_index}.json').write_text(json.dumps(dealt))
    model, processor = load_model(folder / 'base', device='cpu')
    lost = OmniSFTTrainer(model, processor, some(folder, processor, 9), settings(folder / 'lost', **STEPS))
    lost.add_callback(Lost())
    try:
        lost.train()
    except InterruptedError:
        train(folder, 'lost', 9, **STEPS)


if __name__ == '__main__':
    main(Path(sys.argv[1]))
