#!/usr/bin/env bash
# HARPO by verl 0.9.1 on the rows of words of an Atlas, with the HARPO paper's numbers. Not run on GPUs; on a CPU it has
# trained a tiny policy (make verl-run). Run it on the first machine; README.md says what the others do, and what needs CUDA.
set -euo pipefail
MODEL=${MODEL:-Qwen/Qwen2.5-7B-Instruct}
DATA=${DATA:-verl_data}
OUT=${OUT:-runs/verl}
NODES=${NODES:-2}
GPUS=${GPUS:-8}
ESTIMATOR=${ESTIMATOR:-harpo}
# A worker of Ray's stands in the folder where Ray was started, so that a relative path would mean another file there
if [ -d "$MODEL" ]; then MODEL=$(realpath "$MODEL"); fi
DATA=$(realpath -m "$DATA")
OUT=$(realpath -m "$OUT")

python -m verl.trainer.main_ppo \
  trainer.v1.trainer_mode=harpo_sync \
  algorithm.adv_estimator="$ESTIMATOR" \
  algorithm.use_kl_in_reward=False \
  data.train_files="$DATA/train.parquet" \
  data.val_files="$DATA/validation.parquet" \
  data.train_batch_size=32 \
  data.max_prompt_length=3072 \
  data.max_response_length=2048 \
  data.filter_overlong_prompts=True \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=8 \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
  actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean \
  actor_rollout_ref.actor.use_kl_loss=False \
  actor_rollout_ref.actor.entropy_coeff=0 \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=5 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.5 \
  reward.custom_reward_function.path=pkg://omnisapiens_nb.rl.verl_plugin \
  reward.custom_reward_function.name=compute_score \
  reward.reward_manager.name=dapo \
  +reward.reward_kwargs.max_resp_len=2048 \
  +reward.reward_kwargs.overlong_buffer_cfg.enable=True \
  +reward.reward_kwargs.overlong_buffer_cfg.len=128 \
  +reward.reward_kwargs.overlong_buffer_cfg.penalty_factor=0.75 \
  +reward.reward_kwargs.overlong_buffer_cfg.log=False \
  trainer.nnodes=$NODES \
  trainer.n_gpus_per_node=$GPUS \
  trainer.default_local_dir="$OUT" \
  trainer.total_epochs=1 \
  trainer.save_freq=50 \
  trainer.test_freq=50 \
  trainer.logger=[console] \
  "$@"
