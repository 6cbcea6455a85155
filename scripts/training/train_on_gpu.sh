#!/bin/sh
# Train one network on a CUDA GPU for some minutes, beginning from weights, and export it.
#
#     train_on_gpu.sh RECIPE WEIGHTS PHOTOS RESULT MINUTES [OPTION]…
#
# Writes RESULT/RECIPE.safetensors (float16), RESULT/RECIPE.csv (the learning curve) and
# RESULT/RECIPE.log. Run again with the same arguments, it goes on with the run in runs/RECIPE (or
# the folder RUN), if the machine still has it. MINUTES are those of the training, compiling and
# making what it is measured on included; exporting takes seconds more. PHOTOS may be a folder that
# pack_photos.py has made smaller. Further options go to train_compact.py, such as
# `--blocks 1 2 6 16` to add blocks, `--batch 16` if memory is short, or `--responses DIR`.
#
# The machine needs Python with PyTorch 2.9 or newer, OpenCV, einops, PyYAML, safetensors and tqdm,
# and SciPy for --responses. DEVICE=cpu trains on the CPU, to try the script.
set -eu
recipe=$1 weights=$2 photos=$3 result=$4 minutes=$5
shift 5
root=$(cd "$(dirname "$0")/../.." && pwd)
run=${RUN:-$root/runs/$recipe}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# Blur is undone from a wide view; what is degraded on the CPU comes in smaller pieces.
case $recipe in
deblur_motion) set -- --patch 256 --batch 32 "$@" ;;
deblur_defocus | dual_pixel) set -- --patch 192 --batch 24 "$@" ;;
*) set -- --patch 128 --batch 48 "$@" ;;
esac
device=${DEVICE:-cuda}
[ "$device" = cpu ] || set -- --compile --bfloat16 "$@"
mkdir -p "$result"
train() { python3 "$root/scripts/training/train_compact.py" "$recipe" --run "$run" "$@"; }
train --photos "$photos" --init "$weights" --within "$minutes" --device "$device" \
    --workers "${WORKERS:-$(nproc)}" --report-every "${REPORT:-500}" "$@" \
    >>"$result/$recipe.log" 2>&1 || { tail -n 40 "$result/$recipe.log"; exit 1; }
train --export "$result/$recipe.safetensors"
cp "$run/log.csv" "$result/$recipe.csv"
tail -n 5 "$result/$recipe.log"
