#!/bin/bash
# A command of this project as a SLURM job; options of sbatch come before the name of this file.
#
#   sbatch conf/slurm.sh train model=fizzbuzz
#   sbatch --array=1-4 conf/slurm.sh study study.name=width 'model.hidden_features=choice(256,1024)'
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 \
#       conf/slurm.sh train trainer=ddp trainer.num_nodes=2
#
# A run that does not end within the time limit is saved, queued again, and continued.
#SBATCH --job-name=kindling
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append # what a job printed before it was queued again is kept
#SBATCH --time=24:00:00
#SBATCH --ntasks-per-node=1 # processes per node: one per GPU
#SBATCH --cpus-per-task=4
#SBATCH --signal=USR1@120 # seconds before the limit; SLURM may be 60 s early
#SBATCH --requeue # also where a node dies

# With --kill-on-bad-exit=1 a node that dies would end the job before SLURM can queue it again.
srun --kill-on-bad-exit=0 "${PYTHON:-.venv/bin/python}" -m "src.$1" "${@:2}"
status=$?
# 138 is 128 + USR1: the signal came in the milliseconds before Python was there to take it.
[ $status = 138 ] && scontrol requeue "$SLURM_JOB_ID"
exit $status
