"OmniHarpoTrainer with the processor of transformers, where torchvision is: all media reach sampling and loss."

import importlib.util

import numpy as np
import pytest
import trl
from datasets import Dataset
from PIL import Image

from omnisapiens_nb.rl.trl_trainer import OmniHarpoTrainer, encode_prompt
from omnisapiens_nb.sft.model import tiny_model
from omnisapiens_nb.sft.processor import SPECIAL, train_tokenizer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec('torchvision') is None,
    reason='no torchvision, as beside a CPU torch from the registry; machines with a GPU have it',
)
SIDE = 56  # Pixels of a picture: two merged patches of 28
NAMES = dict(
    audio_bos='<|audio_bos|>',
    audio='<|AUDIO|>',
    audio_eos='<|audio_eos|>',
    vision_bos='<|vision_bos|>',
    vision_eos='<|vision_eos|>',
    image='<|IMAGE|>',
    video='<|VIDEO|>',
)


def talk(*parts):
    return [dict(role='user', content=[*parts, dict(type='text', text='what is meant?')])]


def sound(samples):
    return dict(type='audio', audio=np.sin(np.arange(samples) * 0.05).astype(np.float32))


def video(pictures, grey):
    return dict(type='video', video=np.full((pictures, SIDE, SIDE, 3), grey, np.uint8))


STILL = dict(type='image', image=Image.new('RGB', (SIDE, SIDE), (200, 20, 20)))
TALKS = [
    talk(),
    talk(sound(8000)),
    talk(video(4, 90)),
    talk(sound(16000), video(2, 20)),
    talk(STILL, sound(5000), video(2, 10), video(6, 200)),
]


@pytest.fixture(scope='module')
def parts():
    from transformers import Qwen2_5OmniProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    model, ours = tiny_model(train_tokenizer(['what is meant? yes no'] * 9))
    assert set(NAMES.values()) <= set(SPECIAL)
    for name, token in NAMES.items():
        setattr(ours.tokenizer, f'{name}_token', token)
        setattr(ours.tokenizer, f'{name}_token_id', ours.tokenizer.convert_tokens_to_ids(token))
    size = dict(min_pixels=SIDE**2, max_pixels=4 * SIDE**2)
    processor = Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(**size),
        video_processor=Qwen2VLVideoProcessor(**size),
        feature_extractor=ours.extractor,
        tokenizer=ours.tokenizer,
        chat_template=ours.tokenizer.chat_template,
    )
    return model, processor


def test_prompts(parts):
    _, processor = parts
    media = [encode_prompt(processor, t)[1] for t in TALKS]

    def counts(name):
        return [len(found.get(name, ())) for found in media]

    assert counts('video_grid_thw') == [0, 0, 1, 1, 2]
    assert counts('input_features') == [0, 1, 0, 1, 1]
    assert counts('image_grid_thw') == [0, 0, 0, 0, 1]


def lengths(completions, **columns):
    return [float(len(completion[0]['content']) % 3) for completion in completions]


def watched(model):
    "Counts of sounds, and of pictures or videos, that the towers are given from here on."
    heard = []
    seen = []

    def hear(module, args, kwargs):
        heard.append(len(kwargs['feature_lens']))

    def see(module, args, kwargs):
        seen.append(len(kwargs['grid_thw']))

    model.model.audio_tower.register_forward_pre_hook(hear, with_kwargs=True)
    model.model.visual.register_forward_pre_hook(see, with_kwargs=True)
    return heard, seen


def test_training(parts, tmp_path):
    model, processor = parts
    data = Dataset.from_dict(dict(task=list('ababb'), talk=list(range(5)))).with_transform(
        lambda rows: rows | dict(prompt=[TALKS[i] for i in rows['talk']])
    )
    args = trl.GRPOConfig(
        str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_steps=4,
        per_device_train_batch_size=10,
        num_generations=4,
        steps_per_generation=2,
        num_iterations=2,
        max_completion_length=8,
        save_strategy='no',
        disable_tqdm=True,
    )
    trainer = OmniHarpoTrainer(model, lengths, args, data, processor)
    heard, seen = watched(model)
    trainer.train()
    assert (sum(heard), sum(seen)) == (4 * 12, 4 * 20)  # Sampling and old log-probabilities once, the loss twice
    assert not trainer.reader.skipped
