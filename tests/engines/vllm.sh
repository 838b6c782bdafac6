#!/bin/bash
# vLLM on a CPU: what a server of it is asked by this package, and what TRL does with it. None of it is in `make test`.
#   make vllm-env && bash tests/engines/vllm.sh FOLDER [MODEL]
# FOLDER is made and holds everything; MODEL is the folder of a language model that judges beside the tiny one.
# The tiny model is drawn at random, so that its answers are noise: what is shown is that they arrive, and are the same.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:?give a folder to make}
real=${2:-}
mkdir -p "$work"
work=$(cd "$work" && pwd)
here=${PYTHON:-$root/.venv/bin/python}
engine=$root/.venv-vllm/bin/python
port=${PORT:-8977}
address=http://127.0.0.1:$port
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
export VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_SERVER_DEV_MODE=1
export PYTHONPATH=$root
unset OPENAI_API_KEY
server=

nb() { "$here" -m omnisapiens_nb.cli "$@"; }
quietly() { grep -v 'leaked\|nanobind\|Triton\|Loading weights\|^ - ' || true; }
say() { printf '\n== %s\n' "$*"; }

stop() {
    [ -n "$server" ] || return 0
    kill "${1:--TERM}" -- "-$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}
trap stop EXIT

wait_for() { # NAME: at most five minutes
    local start=$SECONDS
    until curl -sf "$address/health" >/dev/null; do
        kill -0 "$server" 2>/dev/null || { tail -5 "$work/server-$1.log"; exit 1; }
        [ $((SECONDS - start)) -lt 300 ] || { echo "the server is not up after 300 s"; exit 1; }
        sleep 1
    done
    echo "$1 is served after $((SECONDS - start)) s"
}

serve() { # FOLDER NAME [FLAG...]
    setsid "$engine" -m vllm.entrypoints.openai.api_server --model "$1" --served-model-name "$2" --host 127.0.0.1 \
        --port "$port" --max-model-len 2048 --max-num-seqs 16 --enforce-eager "${@:3}" >"$work/server-$2.log" 2>&1 &
    server=$!
    wait_for "$2"
}

say versions
"$engine" -c 'from importlib.metadata import version as v; print(*(f"{n} {v(n)}" for n in ("vllm-cpu", "torch", "transformers", "trl")))'
grep -m1 'model name' /proc/cpuinfo | cut -d: -f2

say 'an Atlas, and a tiny model'
cd "$work"
[ -d atlas ] || { nb mini --out mini >/dev/null; nb curate --source siq2=mini/siq2 --source mustard=mini/mustard --source daicwoz=mini/daicwoz --out atlas | tail -1; }
[ -d tiny16 ] || nb start --atlas atlas --family language-model --out tiny16
"$here" "$root/tests/engines/vllm_model.py" tiny16 tiny 2>/dev/null
rm -rf *.jsonl *.partial report

say 'predictions of the server, and of transformers with the same model'
serve tiny tiny --dtype float32
start=$SECONDS
nb predict --model tiny --endpoint "$address/v1" --parts text --atlas atlas --out vllm.jsonl
echo "$((SECONDS - start)) s"
nb predict --model tiny --atlas atlas --out tiny.jsonl 2>/dev/null
"$here" "$root/tests/engines/same_answers.py" vllm.jsonl tiny.jsonl

say 'a row with a video, to a server of words alone'
nb predict --model tiny --endpoint "$address/v1" --atlas atlas --rows 1 --out film.jsonl && exit 1
say 'the same; what it refuses stays empty'
nb predict --model tiny --endpoint "$address/v1" --atlas atlas --rows 1 --out film.jsonl --refused-as-empty

say 'the server is killed in the middle'
start=$SECONDS
nb predict --model tiny --endpoint "$address/v1" --parts text --atlas atlas --at-once 2 --out killed.jsonl 2>killed.txt & asking=$!
until [ "$(cat killed.jsonl.run.partial/answers.jsonl 2>/dev/null | wc -l)" -ge 20 ]; do sleep 0.2; done
stop -KILL
died=$SECONDS
wait $asking && exit 1
tail -1 killed.txt
echo "ended $((SECONDS - died)) s after the server; $(wc -l <killed.jsonl.run.partial/answers.jsonl) answers are kept"
serve tiny tiny --dtype float32
nb predict --model tiny --endpoint "$address/v1" --parts text --atlas atlas --at-once 2 --out killed.jsonl 2>/dev/null
"$here" "$root/tests/engines/same_answers.py" killed.jsonl vllm.jsonl

say 'the tiny model as a judge: noise is no verdict'
nb evaluate --atlas atlas --predictions vllm.jsonl --out report --judge openai --judge-url "$address/v1" --judge-model tiny \
    --judge-option max_tokens=8 2>&1 | quietly
echo "$(find report/judge -name '*.json' | wc -l) replies are kept"
stop

say "TRL's server mode"
cp -r tiny served
VLLM_ENV=$root/.venv-vllm setsid bash "$root/recipes/vllm/serve.sh" served "$port" --dtype float32 --max-model-len 2048 \
    --max-num-seqs 16 --enforce-eager >server-recipe.log 2>&1 &
server=$!
wait_for recipe
start=$SECONDS
"$engine" "$root/tests/engines/trl_server.py" served "$port" 1e-2 2>/dev/null
echo "$((SECONDS - start)) s"
stop
rm -r served

if [ -n "$real" ]; then
    say "$(basename "$real") answers and judges"
    serve "$real" real --dtype bfloat16
    start=$SECONDS
    nb predict --model real --endpoint "$address/v1" --parts text --atlas atlas --rows 20 --max-new-tokens 32 --out real.jsonl
    "$here" "$root/tests/engines/right_answers.py" atlas right.jsonl
    nb evaluate --atlas atlas --predictions right.jsonl --out report --judge openai --judge-url "$address/v1" \
        --judge-model real --judge-option max_tokens=64 2>&1 | quietly
    echo "$((SECONDS - start)) s"
fi
say 'done'
