#!/bin/bash
# A search on the nodes of one Slurm job. Edit what is marked, then: sbatch deploy/slurm.sh
# Give the same command again to go on with a search that ran out of time: only the trainings in flight begin anew.
# Untested here: we have no Slurm cluster.
#SBATCH --job-name=nas
#SBATCH --nodes=4                 # edit
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16        # edit: the cores of a node; a worker takes one
##SBATCH --gpus-per-task=1        # edit: remove one # to train on GPUs
#SBATCH --time=08:00:00           # edit

set -euo pipefail
source .venv/bin/activate         # edit: on a file system that all nodes see

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_USAGE_STATS_ENABLED=0
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300  # seconds for all nodes to start, from a disk that they share

# Starts Ray on every node, runs the search on the first, and stops Ray when it has ended.
exec srun --ntasks="$SLURM_NNODES" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_NNODES" --num-cpus "$SLURM_CPUS_PER_TASK" -- \
    python -m nas.search --ray auto --trials 5000 --output-dir results   # edit
