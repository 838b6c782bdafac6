"A language model of nine words with random weights, a tokenizer, and settings, for tests of what is built on TRL."

import contextlib
import io

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig

WORDS = ['<pad>', '<eos>', '<unk>', *'abcdefghijklmnop']
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def tokenizer():
    words = {word: i for i, word in enumerate(WORDS)}
    vocabulary = Tokenizer(models.WordLevel(words, unk_token='<unk>'))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token='<pad>', eos_token='<eos>', unk_token='<unk>')
    made.chat_template = TEMPLATE
    return made


def policy(seed=0):
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)


def settings(folder, **kwargs):
    common = dict(
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy='no',
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    return GRPOConfig(str(folder), **common | kwargs)


def rows(tasks='aabbaabb', **columns):
    return Dataset.from_dict(dict(prompt=list('abcdefghijklmnop')[: len(tasks)], task=list(tasks)) | columns)


def early(completions, **columns):
    "A reward that differs between completions: how early in the alphabet their words are."
    return [sum(ord('p') - ord(word) for word in text.split() if len(word) == 1) / 8 for text in completions]


def length(completions, **columns):
    return [float(len(text.split())) for text in completions]


def train(trainer, **kwargs):
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train(**kwargs)
    return trainer


def same(one, other):
    "Whether two trainers have the same weights, to the bit."
    pairs = zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    return all(a.equal(b) for a, b in pairs)
