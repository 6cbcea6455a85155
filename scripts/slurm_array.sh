#!/bin/sh
# Restore a folder with a job array: every task takes one shard.
#
#     sbatch slurm_array.sh SUBCOMMAND [OPTION]...                           Slurm
#     qsub -J 0-15 -v SHARDS=16 -- /path/to/slurm_array.sh SUBCOMMAND …      PBS Pro, OpenPBS
#
# Everything is given to restormer, together with --shard I/N and --wait. All tasks may name the
# same --result-dir and the same --log-json. For example, 64 tasks with a GPU each, at most 32 at a
# time:
#
#     sbatch --array=0-63%32 --gres=gpu:1 slurm_array.sh denoise -r \
#         --input-dir /data/photos --result-dir /data/restored --log-json /data/run.jsonl
#
# Arrays start at 0. SHARDS is the number of parts, if it is not that of the tasks. To run some
# tasks again:
#
#     sbatch --array=3,17 --export=ALL,SHARDS=64 slurm_array.sh denoise …
#
# RESTORMER names the program, unless it is on the PATH. What is done is skipped, so a task can be
# requeued at any time: Slurm does so when a node fails, the script when time runs out.

#SBATCH --job-name=restormer
#SBATCH --array=0-15
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --output=restormer-%A-%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@120

set -u

refuse() {
    echo "$0: $1" >&2
    exit 2
}

[ $# -gt 0 ] || refuse "name a subcommand of restormer and its options"
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    index=$SLURM_ARRAY_TASK_ID
    if [ -z "${SHARDS:-}" ]; then
        SHARDS=${SLURM_ARRAY_TASK_COUNT:?}
        # Tasks such as 3,17 are some of an earlier array, and nobody knows of how many.
        [ "$SHARDS" -eq $((${SLURM_ARRAY_TASK_MAX:?} + 1)) ] ||
            refuse "the tasks of the array are not 0 to N-1; say SHARDS=N, of how many they are"
    fi
elif [ -n "${PBS_ARRAY_INDEX:-${PBS_ARRAYID:-}}" ]; then
    index=${PBS_ARRAY_INDEX:-$PBS_ARRAYID}
    # PBS does not say how many tasks there are.
    [ -n "${SHARDS:-}" ] || refuse "say SHARDS=N, the number of tasks: qsub -J 0-15 -v SHARDS=16"
else
    refuse "is for a job array of Slurm or PBS, and neither has numbered this task"
fi

# PBS sets it by itself.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export OMP_NUM_THREADS="$SLURM_CPUS_PER_TASK"
fi

child=
out_of_time=
# A cancelled task gets TERM; one whose time runs out USR1, as said above.
trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
trap 'out_of_time=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' USR1

echo "$(date '+%Y-%m-%d %H:%M:%S') shard $index/$SHARDS on $(hostname)" >&2
# It waits for what is left of itself on a node that was lost.
"${RESTORMER:-restormer}" "$@" --shard "$index/$SHARDS" --wait &
child=$!
wait "$child"
status=$?
# A signal ends the first wait before the run has ended.
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
done
echo "$(date '+%Y-%m-%d %H:%M:%S') shard $index/$SHARDS: exit status $status" >&2

if [ -n "$out_of_time" ] && [ "$status" -eq 143 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" || exit "$status"
fi
exit "$status"
