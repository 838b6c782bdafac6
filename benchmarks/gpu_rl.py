"""Reinforcement learning on a model of full shape and random weights, with sound: memory, seconds, tokens per second.

python benchmarks/gpu_rl.py RECIPE OUT.json [STEPS] [CAP_GB] [MODEL]

Beside it, TRL's own trainer on words of the same length. RECIPE is one of `recipes/*/rl.yaml`; the shape is that of its
model (nothing is downloaded) or of MODEL, a folder. CAP_GB bounds the memory of the process, to try a smaller card's
recipe on a larger one. Rows are voices of the mini-Atlas; a random policy does not end its answers, so all are as long
as they may be. A four-bit base is run in bfloat16."""

import json
import platform
import sys
import tempfile
import time
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import torch
import trl
from datasets import Dataset
from gpu_sft import random_model, rows
from peft import LoraConfig
from transformers import WhisperFeatureExtractor

from omnisapiens_nb.rl.memory import sound_tokens
from omnisapiens_nb.rl.trl_trainer import OmniHarpoTrainer, atlas_prompts
from omnisapiens_nb.runs.reinforce import plan_rl, read_rl
from omnisapiens_nb.sft.batches import Examples, choose_rows
from omnisapiens_nb.sft.families import PROJECTIONS
from omnisapiens_nb.sft.processor import OmniProcessor
from omnisapiens_nb.sft.sizes import GIB

PHASES = dict(
    sampling='_generate_single_turn', log_probabilities='_get_per_token_logps_and_entropies', step='training_step'
)
FRAME = 8  # Tokens of the chat template around the words of a prompt


def lengths(completions, **columns):
    return [float(len(completion[0]['content']) % 7) for completion in completions]


def clock():
    "Seconds, once the card has done what it was given."
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(trainer, seconds):
    "Note the seconds of each phase; log-probabilities of the loss are part of the step."

    def note(phase, method):
        def wrapper(*args, **kwargs):
            start = clock()
            out = method(*args, **kwargs)
            took = clock() - start
            if phase != 'log_probabilities' or not torch.is_grad_enabled():
                seconds[phase] = seconds.get(phase, 0) + took
            return out

        return wrapper

    for phase, name in PHASES.items():
        setattr(trainer, name, note(phase, getattr(trainer, name)))


def measure(trainer):
    "Train, and say what it took."
    seconds = {}
    timed(trainer, seconds)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with redirect_stdout(StringIO()):
        trainer.train()
    tokens = trainer.state.num_input_tokens_seen
    seconds['rest_of_step'] = seconds['step'] - seconds.get('sampling', 0) - seconds.get('log_probabilities', 0)
    return dict(
        peak_gib=torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None,
        tokens=tokens,
        tokens_per_second=round(tokens / seconds['step']),
        seconds={phase: round(took, 2) for phase, took in seconds.items()},
    )


def trl_settings(recipe, folder, steps, device):
    "The recipe's settings for so many generations, without checkpoints."
    updates = max(1, recipe.train['steps_per_generation'] // recipe.train['gradient_accumulation_steps'])
    short = dict(max_steps=steps * updates, save_strategy='no', report_to=[], disable_tqdm=True)
    on_device = dict(use_cpu=False) if device == 'cuda' else dict(use_cpu=True, bf16=False, fp16=False)
    settings = recipe.train | short | on_device
    dropped = ('save_steps', 'num_train_epochs')
    return trl.GRPOConfig(str(folder / 'run'), **{name: x for name, x in settings.items() if name not in dropped})


def voices(atlas):
    signatures = atlas.columns('modality_signature')['modality_signature']
    return [i for i in choose_rows(atlas) if signatures[i] == 'text_audio']


def words(prompt, count):
    "Rows of words whose prompts have as many tokens as the others with sound."
    row = dict(prompt=[dict(role='user', content=' a' * (prompt - FRAME))], task='a')
    return Dataset.from_list([row] * count)


def write(out, facts):
    Path(out).write_text(json.dumps(facts, indent=1) + '\n', encoding='utf-8')


def main(recipe_file, out, steps='3', cap=None, shape=None):
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    recipe = read_rl(Path(recipe_file))
    if cap:
        share = float(cap) * 1e9 / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(share)
    folder = Path(tempfile.mkdtemp())
    atlas, tokenizer = rows(folder)
    processor = OmniProcessor(tokenizer, WhisperFeatureExtractor(feature_size=128, chunk_length=30))
    heard = voices(atlas)
    prompt = len(processor.encode(atlas[heard[0]]).prompt)
    args = trl_settings(recipe, folder, int(steps), device)
    lora = LoraConfig(target_modules=PROJECTIONS, **recipe.lora) if recipe.lora else None

    def new():
        return random_model(shape or recipe.model, tokenizer, device)

    facts = dict(
        command=f'python benchmarks/gpu_rl.py {recipe_file} OUT.json {steps} {cap or ""} {shape or ""}'.rstrip(),
        device=torch.cuda.get_device_name() if device == 'cuda' else platform.machine(),
        cap_gb=cap,
        generations=int(steps),
        rollouts_per_generation=args.generation_batch_size,
        prompt_tokens=prompt,
        completion_tokens=args.max_completion_length,
        planned_gib=float(plan_rl(recipe, prompt, sound_tokens(1), 0)[1].loc['total'].max()),
        torch=version('torch'),
        trl=version('trl'),
    )
    data = atlas_prompts(Examples(atlas, processor, heard))
    ours = dict(estimator=recipe.estimator, sampled_rows=recipe.sampled_rows)
    facts['omni'] = measure(OmniHarpoTrainer(new(), lengths, args, data, processor, peft_config=lora, **ours))
    write(out, facts)  # Kept, should what follows be stopped
    alike = words(prompt, len(heard))
    facts['stock_trl'] = measure(
        trl.GRPOTrainer(new(), lengths, args, alike, processing_class=tokenizer, peft_config=lora)
    )
    write(out, facts)


if __name__ == '__main__':
    main(*sys.argv[1:])
