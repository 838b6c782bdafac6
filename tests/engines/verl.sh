#!/usr/bin/env bash
# verl 0.9.1 trains by recipes/verl/train.sh on a CPU: two nodes of Ray, one logical GPU each, a tiny policy. Four runs,
# of a minute or two each, and 5 GB of memory, in the environment of `make verl-env`; nothing of it is in `make test`.
#
# bash tests/engines/verl.sh [FOLDER]    runs, logs and checkpoints go there; the log is nbs/results/verl_run.json
set -euo pipefail
cd "$(dirname "$0")/../.."
WORK=$(realpath -m "${1:-runs/verl_cpu}")
HERE=$(realpath -m --relative-to=. "$WORK")  # As one names it who starts a run
PORT=${PORT:-6399}
STEPS=5
HALF=3

test -x .venv-verl/bin/python || { echo 'no verl here: make verl-env' >&2; exit 1; }
export PATH="$PWD/.venv-verl/bin:$PATH"
export PYTHONPATH="$PWD/tests/engines:$PWD" PYTHONWARNINGS=ignore OMP_NUM_THREADS=1
export VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=verl_cpu,verl_hf
# A home of its own, since Ray keeps its token there
export HOME="$WORK/home" RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_DEDUP_LOGS=0
export RAY_ADDRESS="$(hostname -I | cut -d' ' -f1):$PORT"
rm -rf "$WORK"
mkdir -p "$HOME" "$WORK/logs"

nodes=()
stop() {
  for pid in "${nodes[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
}
trap stop EXIT

node() { # NAME and arguments of `ray start`; left running
  local name=$1; shift
  # From another folder than the run's, as on another machine
  (cd "$WORK" && exec ray start --block --num-gpus=1 --num-cpus=8 --object-store-memory=150000000 "$@" >"$WORK/logs/$name.log" 2>&1) &
  nodes=("$!" "${nodes[@]}")
}

gpus() { ray status 2>/dev/null | grep -oE '[0-9.]+/[0-9.]+ GPU' || true; }

until_gpus() { # COUNT
  for _ in $(seq 120); do
    [[ $(gpus) == */"$1.0 GPU" ]] && return
    sleep 1
  done
  echo "Ray has $(gpus), not $1, after two minutes; see $WORK/logs" >&2
  exit 1
}

train() { # NAME, folder of checkpoints, number of steps and further settings
  local name=$1 out=$2 steps=$3 began=$SECONDS status=0; shift 3
  MODEL="$HERE/policy" DATA="$HERE" OUT="$HERE/$out" NODES=2 GPUS=1 timeout 900 bash recipes/verl/train.sh \
    trainer.device=cpu \
    data.train_batch_size=8 \
    data.max_prompt_length=16 \
    data.max_response_length=16 \
    data.dataloader_num_workers=0 \
    +actor_rollout_ref.model.override_config.attn_implementation=sdpa \
    actor_rollout_ref.model.use_remove_padding=False \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.use_torch_compile=False \
    +actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp32 \
    actor_rollout_ref.actor.optim.lr=1e-3 \
    actor_rollout_ref.rollout.name=hf \
    actor_rollout_ref.rollout.n=4 \
    actor_rollout_ref.rollout.agent.num_workers=1 \
    reward.num_workers=1 \
    reward.reward_kwargs.max_resp_len=16 \
    reward.reward_kwargs.overlong_buffer_cfg.len=12 \
    transfer_queue.backend.SimpleStorage.num_data_storage_units=1 \
    trainer.total_epochs=9 \
    trainer.total_training_steps="$steps" \
    trainer.save_freq="$HALF" \
    trainer.test_freq=-1 \
    trainer.rollout_data_dir="$WORK/$name" \
    hydra.run.dir="$WORK/hydra" \
    +ray_kwargs.ray_init.runtime_env.env_vars.VERL_HF_RECORD="$WORK/$name.jsonl" \
    "$@" >"$WORK/logs/$name.log" 2>&1 || status=$?
  echo "$name $status $((SECONDS - began))" | tee -a "$WORK/seconds.txt"
}

python tests/engines/verl_run.py prepare "$WORK"
ray get-auth-token --generate >/dev/null
node first --head --port="$PORT" --include-dashboard=false --temp-dir="$WORK/ray"
until_gpus 1

# A machine without the token is not let in
mkdir "$WORK/stranger"
HOME="$WORK/stranger" timeout 60 ray start --address="$RAY_ADDRESS" --num-gpus=1 >"$WORK/logs/stranger.log" 2>&1 &&
  { echo 'a node without a token was let in' >&2; exit 1; }

node second --address="$RAY_ADDRESS"
until_gpus 2
ray status >"$WORK/logs/status.txt"

train straight whole "$STEPS"
train killed parts "$STEPS" "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_HF_DIES='$HALF'"
train resumed parts "$STEPS"
ESTIMATOR=harpoo train misspelt misspelt "$STEPS"
for kept in whole parts; do
  python -m verl.model_merger merge --backend fsdp --local_dir "$WORK/$kept/global_step_$STEPS/actor" \
    --target_dir "$WORK/$kept/policy" >"$WORK/logs/merge_$kept.log" 2>&1
done
python tests/engines/verl_run.py check "$WORK"
