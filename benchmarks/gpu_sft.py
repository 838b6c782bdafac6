"""Ten steps of stage 1 on a model of full shape and random weights: peak memory and tokens per second.

python benchmarks/gpu_sft.py MODEL OUT.json [STEPS] [ROWS]

MODEL is `Qwen/Qwen2.5-Omni-7B`, `Qwen/Qwen2.5-Omni-3B` (nothing is downloaded) or a folder; rows are those of the mini-Atlas."""

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
from omnisapiens_nb.sft.model import tiny_config
from omnisapiens_nb.sft.processor import OmniProcessor, train_tokenizer
from omnisapiens_nb.sft.sizes import GIB, parameters, thinker_config
from omnisapiens_nb.sft.stages import ClassifyConfig, train_classifier
from omnisapiens_nb.sft.targets import target_text


def rows(folder):
    "Training rows of two small sources, and a tokenizer for them."
    write_meld(folder / 'meld', dialogues=(8, 2, 2))
    write_cremad(folder / 'cremad', actors=8)
    atlas = open_atlas(curate(dict(meld=folder / 'meld', cremad=folder / 'cremad'), folder / 'atlas').folder)
    return atlas, train_tokenizer(r['problem'] + target_text(r) for r in atlas)


def random_model(name, tokenizer, device):
    "The shape of a release, with the numbers that our small tokenizer gives its special tokens."
    config, ids = thinker_config(name), tiny_config(tokenizer)
    for field in (
        'user_token_id',
        'audio_token_index',
        'image_token_index',
        'video_token_index',
        'audio_start_token_id',
        'audio_end_token_id',
        'vision_start_token_id',
        'vision_end_token_id',
    ):
        setattr(config, field, getattr(ids, field))
    config.text_config.pad_token_id = tokenizer.pad_token_id
    with torch.device(device):
        return Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=torch.bfloat16)


def main(name, out, steps='10', batch='8'):
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    atlas, tokenizer = rows(Path(tempfile.mkdtemp()))
    model = random_model(name, tokenizer, device)
    examples = Examples(
        atlas, OmniProcessor(tokenizer, WhisperFeatureExtractor(feature_size=128, chunk_length=30)), choose_rows(atlas)
    )
    config = ClassifyConfig(steps=int(steps), batch=int(batch), lr=1e-4, gradient_checkpointing=True)
    tokens = sum(
        len(examples[i].prompt)
        for step in range(config.steps)
        for i in draw_batch(examples, config.batch, 'classify', config.seed, step)
    )
    start = time.monotonic()
    wrapped, heads, log = train_classifier(model, examples.processor, examples, config)
    seconds = time.monotonic() - start
    peak = torch.cuda.max_memory_allocated() / GIB if device == 'cuda' else None
    facts = dict(
        command=f'python benchmarks/gpu_sft.py {name} OUT.json {steps} {batch}',
        device=torch.cuda.get_device_name() if device == 'cuda' else platform.machine(),
        trained=parameters(wrapped, trained=True) + parameters(heads),
        weights=parameters(wrapped),
        steps=len(log),
        rows_per_step=config.batch,
        tokens=tokens,
        seconds=round(seconds, 1),
        tokens_per_second=round(tokens / seconds),
        peak_gib=peak,
        torch=version('torch'),
        transformers=version('transformers'),
    )
    Path(out).write_text(json.dumps(facts, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main(*sys.argv[1:])
