#!/bin/bash
# recipes/cluster/rl.slurm under Slurm itself: one machine as two nodes. None of it is in `make test`.
#   apt-get install slurm-wlm munge && bash tests/cluster/slurm.sh FOLDER
# As root, on a machine without a Slurm of its own. FOLDER is made and holds everything: configuration, key, logs, runs.
# GPUS=N pretends to N GPUs per node, and so starts N processes on each; none where absent.
# The names of the nodes are known in this script alone, by a mount that ends with it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=${1:?give a folder to make}
mkdir -p "$work" && work=$(cd "$work" && pwd)
if [ -z "${APART:-}" ]; then
    { cat /etc/hosts; echo 127.0.0.1 n1 n2; } >"$work/hosts"
    APART=1 exec unshare --mount bash "$0" "$work"
fi
mount --bind "$work/hosts" /etc/hosts

gpus=${GPUS:-0}
python=${PYTHON:-$root/.venv/bin/python}
export PATH=$(dirname "$python"):$PATH PYTHONPATH=$root SLURM_CONF=$work/slurm.conf
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONWARNINGS=ignore
host=$(hostname -s)
daemons=()

say() { printf '\n== %s\n' "$*"; }
job() { scontrol show job "$1" | tr ' ' '\n' | sed -n "s/^$2=//p" | head -1; }

stop() {
    scancel --user="$(id -un)" 2>/dev/null || true
    sleep 3
    for daemon in "${daemons[@]}"; do kill -TERM "$daemon" 2>/dev/null || true; done
    sleep 2
    for daemon in "${daemons[@]}"; do kill -KILL "$daemon" 2>/dev/null || true; done
}
trap stop EXIT

state_is() { # JOB SECONDS STATE...: waits until it is one of them
    local until=$((SECONDS + $2))
    while :; do
        case " ${*:3} " in *" $(job "$1" JobState) "*) return 0 ;; esac
        [ $SECONDS -lt $until ] || { echo "job $1 is $(job "$1" JobState) after $2 s"; exit 1; }
        # A job that was put back waits for two minutes; here it need not
        [ "$(job "$1" JobState)" != PENDING ] || scontrol update "JobId=$1" StartTime=now 2>/dev/null || true
        sleep 1
    done
}

checkpoint() { # FOLDER STEP SECONDS: waits until it is there
    local until=$((SECONDS + $3))
    until [ -d "$1.partial/trl/checkpoint-$2" ]; do
        [ $SECONDS -lt $until ] || { echo "no checkpoint $2 after $3 s"; exit 1; }
        sleep 0.5
    done
}

recipe() { # NAME: writes it
    sed "s#OUT#$work/$1#; s#ATLAS#$work/atlas#; s#MODEL#$work/start#" >"$work/$1.yaml" <<'R'
trainer: trl
atlas: ATLAS
model: MODEL
out: OUT
estimator: harpo
reward: harpo
device: cpu
train: {max_steps: 16, learning_rate: 2.0e-4, lr_scheduler_type: constant, beta: 0.0, num_generations: 4,
  per_device_train_batch_size: 4, gradient_accumulation_steps: 2, steps_per_generation: 2, max_completion_length: 32,
  temperature: 1.0, loss_type: grpo, gradient_checkpointing: false, bf16: false, logging_steps: 1, save_steps: 2}
R
}

submit() { # NAME [OPTION...]
    local cards=()
    [ "$gpus" -eq 0 ] || cards=("--gpus-per-node=$gpus")
    sbatch --parsable --cpus-per-task=1 --mem=1000 --gpus-per-node="$gpus" --output="$work/$1.log" "${@:2}" \
        "$root/recipes/cluster/rl.slurm" "$work/$1.yaml"
}

same() { # ONE OTHER
    "$python" "$root/tests/cluster/same_run.py" "$work/$1" "$work/$2"
}

say 'Slurm'
cd "$work"
mkdir -p munge state spool log
chmod 700 munge
head -c 1024 /dev/urandom >munge/key
chmod 600 munge/key
{
    cat <<C
ClusterName=trial
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=17817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge/socket
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool/%n
SlurmctldPidFile=$work/spool/slurmctld.pid
SlurmdPidFile=$work/spool/%n.pid
SlurmctldLogFile=$work/log/slurmctld
SlurmdLogFile=$work/log/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MpiDefault=none
MailProg=/bin/true
PartitionName=all Nodes=n1,n2 Default=YES State=UP
C
    [ "$gpus" -eq 0 ] || echo GresTypes=gpu
    for i in 1 2; do
        echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=1790$i CPUs=4 RealMemory=4000$([ "$gpus" -eq 0 ] || echo " Gres=gpu:$gpus")"
    done
} >slurm.conf
[ "$gpus" -eq 0 ] || echo "Name=gpu Count=$gpus" >gres.conf
munged --foreground --force --key-file=munge/key --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --log-file="$work/munge/log" --seed-file="$work/munge/seed" 2>log/munged & daemons+=($!)
sleep 1
slurmctld -D -f slurm.conf 2>/dev/null & daemons=($! "${daemons[@]}")
sleep 2
for node in n1 n2; do
    slurmd -D -N $node -f slurm.conf 2>/dev/null & daemons=($! "${daemons[@]}")
done
until [ "$(sinfo --noheader --format=%T)" = idle ]; do
    [ $SECONDS -lt 60 ] || { sinfo; exit 1; }
    sleep 1
done
sinfo --version
sinfo --noheader --Node --format='%N %T %c CPUs %m MB %G'

say 'a tiny model, its Atlas, and a run that nothing disturbs'
if [ ! -d start ]; then
    omnisapiens-nb mini --out mini >/dev/null
    omnisapiens-nb curate --source siq2=mini/siq2 --out atlas | tail -1
    omnisapiens-nb init-model --atlas atlas --family language-model --out start
fi
rm -rf whole* timed* cut*
for name in whole timed cut; do recipe $name; done
start=$SECONDS
id=$(submit whole)
state_is "$id" 900 COMPLETED FAILED TIMEOUT
took=$((SECONDS - start))
echo "$(job "$id" JobState) on $(job "$id" NodeList) after $took s"

# Slurm sends a signal up to half a minute early
due=$((took * 7 / 10))
limit=$(((due + 60) / 60 + 1))
say "a time limit of $limit minutes, USR1 $((limit * 60 - due)) s before it, back into the queue, resumed"
start=$SECONDS
id=$(submit timed --time=$limit --signal=B:USR1@$((limit * 60 - due)))
state_is "$id" 1200 COMPLETED FAILED TIMEOUT
echo "$(job "$id" JobState), put back $(job "$id" Restarts) times, after $((SECONDS - start)) s"
[ "$(job "$id" Restarts)" -gt 0 ] || { echo 'it ended too early to be put back'; exit 1; }
grep -h 'back into the queue' timed.log
same timed whole

say 'scancel: nothing of it stays'
id=$(submit cut)
checkpoint cut 4 300
scancel "$id"
state_is "$id" 60 CANCELLED
sleep 3
echo "processes of the run left: $(pgrep -fc "rl --config $work/cut.yaml" || true)"

say 'one process is killed: the job goes down with a message'
id=$(submit cut --open-mode=append)
checkpoint cut 8 300
kill -KILL "$(pgrep -f "python.* rl --config $work/cut.yaml" | tail -1)"
state_is "$id" 120 FAILED COMPLETED TIMEOUT
echo "$(job "$id" JobState), exit code $(job "$id" ExitCode)"
grep -h 'Signal 9\|SIGKILL\|goes on from the last' cut.log | sed "s#$work#FOLDER#g; s/^[[:space:]]*//" | tail -3
sleep 3
echo "processes of the run left: $(pgrep -fc "rl --config $work/cut.yaml" || true)"

say 'submitted again'
id=$(submit cut)
state_is "$id" 900 COMPLETED FAILED TIMEOUT
echo "$(job "$id" JobState)"
same cut whole
say "done after $SECONDS s"
