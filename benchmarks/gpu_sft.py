"""Ten steps of stage 1 on a model of full shape and random weights: peak memory and tokens per second.

python benchmarks/gpu_sft.py MODEL OUT.json [STEPS] [ROWS]

MODEL is `Qwen/Qwen2.5-Omni-7B`, `Qwen/Qwen2.5-Omni-3B` (nothing is downloaded) or a folder; rows are those of the
mini-Atlas."""

import json
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.meld import write_meld
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.sft.batches import Examples, choose_rows, draw_batch
from omnisapiens_nb.sft.model import TOKEN_FIELDS
from omnisapiens_nb.sft.processor import OmniProcessor, train_tokenizer
from omnisapiens_nb.sft.sizes import GIB, parameters, thinker_config
from omnisapiens_nb.sft.stages import ClassifyConfig, train_classifier
from omnisapiens_nb.sft.targets import target_text


def rows(folder):
    "Training rows of two small sources, and a tokenizer for them."
    write_meld(folder / 'meld', dialogues=(8, 2, 2))
    write_cremad(folder / 'cremad', actors=8)
    made = curate(dict(meld=folder / 'meld', cremad=folder / 'cremad'), folder / 'atlas')
    atlas = open_atlas(made.folder)
    return atlas, train_tokenizer(r['problem'] + target_text(r) for r in atlas)


def random_model(name, tokenizer, device):
    "The shape of a release, with the numbers that our small tokenizer gives its special tokens."
    config = thinker_config(name)
    for field, token in TOKEN_FIELDS.items():
        setattr(config, field, tokenizer.convert_tokens_to_ids(token))
    config.text_config.pad_token_id = tokenizer.pad_token_id
    with torch.device(device):
        return Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=torch.bfloat16)


def prompt_tokens(examples, config):
    "Tokens of all prompts of a run, without padding."
    total = 0
    for step in range(config.steps):
        drawn = draw_batch(examples, config.batch, 'classify', config.seed, step)
        total += sum(len(examples[i].prompt) for i in drawn)
    return total


def main(name, out, steps='10', batch='8'):
    on_gpu = torch.cuda.is_available()
    atlas, tokenizer = rows(Path(tempfile.mkdtemp()))
    model = random_model(name, tokenizer, 'cuda' if on_gpu else 'cpu')
    processor = OmniProcessor(tokenizer, WhisperFeatureExtractor(feature_size=128, chunk_length=30))
    examples = Examples(atlas, processor, choose_rows(atlas))
    config = ClassifyConfig(steps=int(steps), batch=int(batch), lr=1e-4, gradient_checkpointing=True)
    tokens = prompt_tokens(examples, config)
    start = time.monotonic()
    wrapped, heads, log = train_classifier(model, processor, examples, config)
    seconds = time.monotonic() - start
    facts = dict(
        command=f'python benchmarks/gpu_sft.py {name} OUT.json {steps} {batch}',
        device=torch.cuda.get_device_name() if on_gpu else platform.machine(),
        trained=parameters(wrapped, trained=True) + parameters(heads),
        weights=parameters(wrapped),
        steps=len(log),
        rows_per_step=config.batch,
        tokens=tokens,
        seconds=round(seconds, 1),
        tokens_per_second=round(tokens / seconds),
        peak_gib=torch.cuda.max_memory_allocated() / GIB if on_gpu else None,
        torch=version('torch'),
        transformers=version('transformers'),
    )
    Path(out).write_text(json.dumps(facts, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
