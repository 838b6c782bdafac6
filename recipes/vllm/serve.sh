#!/bin/bash
# A vLLM server for TRL's rollouts of words and pictures, in an environment of its own.
#   bash recipes/vllm/serve.sh MODEL [PORT] [FLAG...]
# Run by tests/engines/vllm.sh on a CPU (nbs/results/vllm_cpu.txt), where `make vllm-env` made the environment; not on a GPU.
set -euo pipefail
model=${1:?give a model, such as Qwen/Qwen2.5-Omni-3B}
port=${2:-8000}
env=${VLLM_ENV:-.venv-vllm}

if [ ! -x "$env/bin/python" ]; then
    python3 -m venv "$env"
    "$env/bin/pip" install vllm==0.32.0 transformers==5.19.0
fi

# The module, not the command `vllm`, which the build for CPUs does not start
VLLM_SERVER_DEV_MODE=1 exec "$env/bin/python" -m vllm.entrypoints.openai.api_server --model "$model" \
    --host 127.0.0.1 \
    --port "$port" \
    --dtype auto \
    --gpu-memory-utilization 0.9 \
    --max-model-len 5120 \
    --enable-scale-out \
    --weight-transfer-config '{"backend": "nccl"}' \
    --logprobs-mode processed_logprobs \
    --max-logprobs -1 \
    "${@:3}"
