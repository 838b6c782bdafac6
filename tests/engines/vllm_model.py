"""The package's tiny language model with heads that vLLM's CPU kernels take: vllm_model.py TINY OUT

They have kernels for heads of 32 numbers and more; the tiny model has heads of 16. So the same model is drawn anew
with half as many heads of twice the size."""

import sys

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

tiny, out = sys.argv[1:]
config = Qwen2Config.from_pretrained(tiny)
config.num_attention_heads //= 2
config.num_key_value_heads //= 2
torch.manual_seed(0)
Qwen2ForCausalLM(config).save_pretrained(out)
AutoTokenizer.from_pretrained(tiny).save_pretrained(out)
