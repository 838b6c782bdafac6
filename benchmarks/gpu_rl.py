"""Some steps of reinforcement learning on a model of full shape and random weights, with sound, and of TRL's own
trainer on words of the same length: peak memory, seconds of each phase, tokens per second.

python benchmarks/gpu_rl.py RECIPE OUT.json [STEPS] [CAP_GB] [MODEL]

RECIPE is one of `recipes/*/rl.yaml`; the shape is that of its model (nothing is downloaded) or of MODEL, a
folder. CAP_GB bounds the memory of the process, to try a smaller card's recipe on a larger one. Rows are voices
of the mini-Atlas; a random policy does not end its answers, so all are as long as they may be. A four-bit base
is run in bfloat16.
"""

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
from omnisapiens_nb.sft.processor import OmniProcessor
from omnisapiens_nb.sft.sizes import GIB
from omnisapiens_nb.sft.stages import PROJECTIONS

PHASES = dict(
    sampling='_generate_single_turn', log_probabilities='_get_per_token_logps_and_entropies', step='training_step'
)


def lengths(completions, **columns):
    return [float(len(c[0]['content']) % 7) for c in completions]


def timed(trainer, seconds):
    "Note the seconds of each phase; log-probabilities of the loss are part of the step."

    def note(phase, method):
        def wrapper(*args, **kwargs):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start = time.perf_counter()
            out = method(*args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if phase != 'log_probabilities' or not torch.is_grad_enabled():
                seconds[phase] = seconds.get(phase, 0) + time.perf_counter() - start
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
    peak, tokens = (
        torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else None,
        trainer.state.num_input_tokens_seen,
    )
    seconds['rest_of_step'] = seconds['step'] - seconds.get('sampling', 0) - seconds.get('log_probabilities', 0)
    return dict(
        peak_gib=peak,
        tokens=tokens,
        tokens_per_second=round(tokens / seconds['step']),
        seconds={k: round(v, 2) for k, v in seconds.items()},
    )


def main(recipe_file, out, steps='3', cap=None, shape=None):
    device, recipe = 'cuda' if torch.cuda.is_available() else 'cpu', read_rl(Path(recipe_file))
    if cap:
        torch.cuda.set_per_process_memory_fraction(float(cap) * 1e9 / torch.cuda.get_device_properties(0).total_memory)
    folder = Path(tempfile.mkdtemp())
    atlas, tokenizer = rows(folder)
    processor = OmniProcessor(tokenizer, WhisperFeatureExtractor(feature_size=128, chunk_length=30))
    heard = [
        i for i in choose_rows(atlas) if atlas.columns('modality_signature')['modality_signature'][i] == 'text_audio'
    ]
    updates = int(steps) * max(1, recipe.train['steps_per_generation'] // recipe.train['gradient_accumulation_steps'])
    settings = recipe.train | dict(
        max_steps=updates,
        save_strategy='no',
        report_to=[],
        disable_tqdm=True,
        use_cpu=device == 'cpu',
        **({} if device == 'cuda' else dict(bf16=False, fp16=False)),
    )
    args = trl.GRPOConfig(
        str(folder / 'run'), **{k: v for k, v in settings.items() if k not in ('save_steps', 'num_train_epochs')}
    )
    new, lora = (
        lambda: random_model(shape or recipe.model, tokenizer, device),
        LoraConfig(target_modules=PROJECTIONS, **recipe.lora) if recipe.lora else None,
    )
    prompt = len(processor.encode(atlas[heard[0]]).prompt)
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
    facts['omni'] = measure(
        OmniHarpoTrainer(
            new(),
            lengths,
            args,
            atlas_prompts(Examples(atlas, processor, heard)),
            processor,
            recipe.sampled_rows,
            estimator=recipe.estimator,
            peft_config=lora,
        )
    )
    words = Dataset.from_list([dict(prompt=[dict(role='user', content=' a' * (prompt - 8))], task='a')] * len(heard))
    facts['stock_trl'] = measure(
        trl.GRPOTrainer(new(), lengths, args, words, processing_class=tokenizer, peft_config=lora)
    )
    Path(out).write_text(json.dumps(facts, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
