#!/usr/bin/env bash
# A run on the nodes of a Slurm job: its first server on the first node, workers on all. What does not fit into the time
# limit goes on when the job is requeued, by itself. Submit it from a folder that all nodes share, after `ps-vae keys new`
# in a home that they share:
#
#     sbatch docs/deploy/slurm.sh --data mnist --epochs 20
#
#SBATCH --job-name=ps-vae
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ps-vae-%j.log

set -euo pipefail

# The same job has the same folder, and so has one of the same name that is submitted later.
run=${PS_VAE_RUN:-runs/$SLURM_JOB_NAME}
keys=${PS_VAE_KEYS:-$HOME/.config/ps-vae/keys}
port=${PS_VAE_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# Both steps use the same cores: a server needs few of them.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ps-vae server --supervise --begin-or-resume --run-dir "$run" --listen "tcp://0.0.0.0:$port" --keys "$keys" "$@" &
server=$!
# Slurm tells this script alone, and some time before the limit; the server finishes the open steps and writes a checkpoint.
is_out_of_time=no
trap 'is_out_of_time=yes; trap "" TERM; kill -TERM "$server" 2>/dev/null || true' TERM
srun --overlap --ntasks-per-node=1 \
    ps-vae worker --server "tcp://$head:$port" --keys "$keys" --connect-timeout 600 --processes "$SLURM_CPUS_PER_TASK" --as-one &
workers=$!

code=0
wait "$server" || code=$?
if [[ $is_out_of_time == yes && $code -gt 128 ]]; then
    # The signal ended `wait`, not the server.
    code=0
    wait "$server" || code=$?
fi

if [[ $is_out_of_time == yes && $code == 0 ]]; then
    kill -TERM "$workers" 2>/dev/null || true
    # Where the run was over just then, it says so at once the next time.
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
if [[ $code != 0 ]]; then
    kill -TERM "$workers" 2>/dev/null || true
fi
wait "$workers" || true
exit "$code"
