#!/bin/bash
# A vLLM server for TRL's rollouts of words and pictures, in an environment of its own. Not run here: it wants a GPU.
#   bash recipes/vllm/serve.sh MODEL [PORT]
set -euo pipefail
model=${1:?give a model, such as Qwen/Qwen2.5-Omni-3B}
port=${2:-8000}
env=.venv-vllm

if [ ! -x "$env/bin/vllm" ]; then
    python3 -m venv "$env"
    "$env/bin/pip" install "vllm>=0.31,<0.32"
fi

VLLM_SERVER_DEV_MODE=1 exec "$env/bin/vllm" serve "$model" \
    --host 127.0.0.1 \
    --port "$port" \
    --dtype auto \
    --gpu-memory-utilization 0.9 \
    --max-model-len 5120 \
    --enable-scale-out \
    --weight-transfer-config '{"backend": "nccl"}' \
    --logprobs-mode processed_logprobs \
    --max-logprobs -1
