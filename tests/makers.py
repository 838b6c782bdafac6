"Tiny random language models of several makers, by name."

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from omnisapiens_nb.sft.processor import train_tokenizer
from omnisapiens_nb.sft.text_models import TEXT_SPECIAL

WINDOW = dict(num_hidden_layers=6, head_dim=16, num_key_value_heads=1, sliding_window=8)  # Shorter than a prompt
STILL = dict(attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)  # No dropout
MIXED = dict(
    layer_types=['linear_attention', 'full_attention'],
    num_key_value_heads=1,
    head_dim=16,
    linear_num_key_heads=2,
    linear_num_value_heads=2,
    linear_key_head_dim=8,
    linear_value_head_dim=8,
    num_experts=2,
    num_experts_per_tok=1,
    moe_intermediate_size=16,
    shared_expert_intermediate_size=16,
)


def tiny_of(kind):
    "A tiny model of some maker, and a tokenizer for it."
    tokenizer = train_tokenizer(['why is it so? it is a joke, yes or no'] * 9, special=TEXT_SPECIAL)
    words = len(tokenizer)
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=words)
    ends = dict(pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
    small = dict(vocab_size=words, n_embd=32, n_layer=2, n_head=2)
    state = dict(vocab_size=words, hidden_size=32, num_hidden_layers=2)
    makers = dict(
        llama=lambda: LlamaForCausalLM(LlamaConfig(**shape, **ends)),
        gemma=lambda: Gemma3ForCausalLM(Gemma3TextConfig(**shape | ends | WINDOW)),
        gpt2=lambda: GPT2LMHeadModel(GPT2Config(**small, **ends, **STILL)),
        mistral=lambda: MistralForCausalLM(MistralConfig(**shape | ends, num_key_value_heads=1, sliding_window=8)),
        bloom=lambda: BloomForCausalLM(BloomConfig(vocab_size=words, hidden_size=32, n_layer=2, n_head=2, **ends)),
        mamba=lambda: MambaForCausalLM(MambaConfig(**state, **ends)),
        mixed=lambda: Qwen3NextForCausalLM(Qwen3NextConfig(**shape, **ends, **MIXED)),
    )
    torch.manual_seed(0)
    return makers[kind](), tokenizer
