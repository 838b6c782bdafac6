"""The training side of bench.py: steps of reinforcement learning, and the padding of supervised batches."""

import random
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import torch
import trl
from sides import beside, need

from omnisapiens_nb.atlas.curate import curate
from omnisapiens_nb.atlas.mini.cremad import write_cremad
from omnisapiens_nb.atlas.mini.meld import write_meld
from omnisapiens_nb.atlas.mini.mustard import write_mustard
from omnisapiens_nb.atlas.mini.siq2 import write_siq2
from omnisapiens_nb.atlas.store import open_atlas
from omnisapiens_nb.rl.loop import token_logps
from omnisapiens_nb.rl.trl_trainer import OmniHarpoTrainer, encode_prompt, join_media
from omnisapiens_nb.sft.batches import Examples, choose_rows, draw_batch
from omnisapiens_nb.sft.generate import generate
from omnisapiens_nb.sft.media_once import media_once
from omnisapiens_nb.sft.model import tiny_model
from omnisapiens_nb.sft.processor import as_messages, train_tokenizer
from omnisapiens_nb.sft.targets import target_text
from omnisapiens_nb.sft.text_models import TEXT_SPECIAL, tiny_text_model

PROMPTS = 16
ROLLOUTS = 5
LONGEST = 24  # Tokens of a completion
STEPS = 3  # Of TRL in one measurement
WORDS = 'why is it so? it is a joke, yes or no'


def vowels(completions, **columns):
    return [float(sum(c in 'aeiou' for c in answer[0]['content'])) for answer in completions]


def settings(folder: Path) -> trl.GRPOConfig:
    "TRL's settings for both trainers."
    return trl.GRPOConfig(
        str(folder),
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_steps=STEPS,
        per_device_train_batch_size=PROMPTS * ROLLOUTS,
        num_generations=ROLLOUTS,
        max_completion_length=LONGEST,
        save_strategy='no',
        logging_strategy='no',
        disable_tqdm=True,
        gradient_checkpointing=False,
    )


def steps_of_words() -> Iterator[dict]:
    "Whole steps of `OmniHarpoTrainer` and of TRL's own trainer: the same model, prompts, lengths and reward."
    from datasets import Dataset

    peer = need('trl', 'trl') + ', GRPOTrainer'
    tokenizer = train_tokenizer([WORDS] * 9, special=TEXT_SPECIAL)
    rows = [dict(prompt=[dict(role='user', content=f'{WORDS} ' * 8 + str(i))], task='ab'[i % 2]) for i in range(48)]
    spoken = [
        row | dict(prompt=[dict(role='user', content=[dict(type='text', text=row['prompt'][0]['content'])])])
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as name:
        args = settings(Path(name))
        model, processor = tiny_text_model(tokenizer)
        ours = OmniHarpoTrainer(model, vowels, args, Dataset.from_list(spoken), processor)
        other, _ = tiny_text_model(tokenizer)
        stock = trl.GRPOTrainer(other, vowels, args, Dataset.from_list(rows), processing_class=tokenizer)

        def quietly(trainer):
            with redirect_stdout(StringIO()):
                trainer.train()

        what = f'{STEPS} steps of reinforcement learning on words, {PROMPTS} prompts × {ROLLOUTS} rollouts'
        yield beside(what, lambda: quietly(ours), lambda: quietly(stock), peer, times=0.95, calls=1)


def _scenes(folder):
    "Scenes with words, sound and film, a tiny model, and its processor."
    write_meld(folder / 'meld', dialogues=(12, 2, 1))
    curate(dict(meld=folder / 'meld'), folder / 'atlas')
    atlas = open_atlas(folder / 'atlas')
    model, processor = tiny_model(train_tokenizer(row['problem'] + target_text(row) for row in atlas))
    return atlas, model.eval(), processor


def _tower_vectors(model, joined, media):
    "All media of a batch through their towers."
    with media_once(model, media):
        sounds = model.model.get_audio_features(joined['input_features'], joined['feature_attention_mask'])
        films = model.model.get_video_features(joined['pixel_values_videos'], joined['video_grid_thw'])
    return sounds.last_hidden_state, torch.cat(films.pooler_output)


def towers() -> Iterator[dict]:
    "The towers in a step of TRL, where a prompt stands in the batch once for each rollout."
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        atlas, model, processor = _scenes(Path(name))
        media = [encode_prompt(processor, as_messages(row))[1] for row in list(atlas)[:PROMPTS]]
        shared = [one for one in media for _ in range(ROLLOUTS)]
        apart = [dict(one) for one in shared]
        joined = join_media(shared)
        for ours, theirs in zip(_tower_vectors(model, joined, shared), _tower_vectors(model, joined, apart)):
            assert torch.allclose(ours, theirs, atol=1e-5)
        yield beside(
            f'towers for sound and film, {PROMPTS} prompts × {ROLLOUTS} rollouts in one batch',
            lambda: _tower_vectors(model, joined, shared),
            lambda: _tower_vectors(model, joined, apart),
            'each rollout through the towers',
            times=ROLLOUTS,
            turns=9,
        )


def prompts_once() -> Iterator[dict]:
    "Sampling and one update of our loop on prompts of 200 tokens."
    tokenizer = train_tokenizer([WORDS] * 9, special=TEXT_SPECIAL)
    model, processor = tiny_text_model(tokenizer)
    plain = processor.encode(dict(problem='', images=[], videos=[], audios=[]))
    long = replace(plain, prompt=(plain.prompt * 200)[:200])
    prompts = [replace(long) for _ in range(PROMPTS)]
    repeated = [prompt for prompt in prompts for _ in range(ROLLOUTS)]
    apart = [replace(prompt) for prompt in repeated]  # Equal prompts, each an object of its own
    completions = generate(model, processor, prompts, LONGEST, sample=True, copies=ROLLOUTS)

    def sampled(examples, copies):
        torch.manual_seed(0)
        return generate(model, processor, examples, LONGEST, sample=True, copies=copies)

    def updated(examples):
        model.zero_grad()
        logps, mask = token_logps(model, processor, examples, completions)
        (logps * mask).sum().backward()

    size = f'{PROMPTS} prompts of 200 tokens × {ROLLOUTS} rollouts'
    how = dict(peer='each rollout reads its prompt', times=1.5)
    assert sampled(prompts, ROLLOUTS) == sampled(apart, 1)
    yield beside(f'sampling, {size}', lambda: sampled(prompts, ROLLOUTS), lambda: sampled(apart, 1), **how)
    yield beside(
        f'log-probabilities and their gradient, {size}', lambda: updated(repeated), lambda: updated(apart), **how
    )


def _padding(lengths, batches):
    "The share of places in batches that hold no token; prompts are padded on the left, answers on the right."
    places = 0
    filled = 0
    for batch in batches:
        before = [lengths[i][0] for i in batch]
        after = [lengths[i][1] for i in batch]
        places += len(batch) * (max(before) + max(after))
        filled += sum(before) + sum(after)
    return 1 - filled / places


def padding() -> Iterator[dict]:
    "How much of a supervised batch is padding: batches of one modality signature, and batches drawn from all rows."
    batches = 400
    size = 32
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cremad(folder / 'cremad', actors=10)
        write_meld(folder / 'meld', dialogues=(44, 6, 18))
        write_mustard(folder / 'mustard', rows=260)
        write_siq2(folder / 'siq2', videos=(40, 4, 8))
        sources = ('cremad', 'meld', 'mustard', 'siq2')
        curate({source: folder / source for source in sources}, folder / 'atlas')
        atlas = open_atlas(folder / 'atlas')
        _, processor = tiny_model(train_tokenizer(row['problem'] + target_text(row) for row in atlas))
        examples = Examples(atlas, processor, choose_rows(atlas))
        lengths = [
            (len(example.prompt), len(processor.tokenizer(target_text(example.row)).input_ids)) for example in examples
        ]
        rng = random.Random(0)
        ours = _padding(lengths, [draw_batch(examples, size, 0, step) for step in range(batches)])
        theirs = _padding(lengths, [rng.sample(range(len(examples)), size) for _ in range(batches)])
    ratio = theirs / ours
    yield dict(
        what=f'padding of supervised batches of {size} rows, four sources',
        ours=f'{ours:.1%}',
        theirs=f'{theirs:.1%}',
        ratio=f'{ratio:.3g}',
        spread='',
        goal='≥ 3×',
        reached='yes' if ratio >= 3 else 'no',
        our_memory='',
        their_memory='',
        peer='batches drawn from all rows',
        share=1,
        turns=batches,
    )


PARTS = dict(rl_words=steps_of_words, towers=towers, prompts_once=prompts_once, padding=padding)
