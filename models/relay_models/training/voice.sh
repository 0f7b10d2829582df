#!/bin/sh
# Trains the voice on one GPU machine, from nothing or from what OUT holds:
#   voice.sh ROOT OUT STAGE=SECONDS ...        e.g. voice.sh ROOT OUT vocoder=450 align=60 acoustic=330 joint=300
# ROOT comes from `python -m relay_models.training.voice_data DATA ROOT` and holds Flite's libraries in tts/ (see
# ears_synthesis.py). SHARDS names a folder for synthetic speech; one that is full already is used as it is. The vocoder
# needs none, so that it is trained, when it comes first, while ten synthesisers work: on the same GPU, or, with GPUS=2,
# on the first one while alignment and text have the second, before the last stage has both.
set -eu
root=$1 out=$2
shift 2
shards=${SHARDS:-$out/shards}
mkdir -p "$shards" "$out"
workers=""
if [ -z "$(ls -A "$shards")" ]; then
  for kind in rms awb; do
    for number in 0 1 2 3 4; do
      OMP_NUM_THREADS=1 nice -n 5 python3 -m relay_models.training.voice_synthesis "$root" "$shards" \
        --kind "$kind" --worker "$number" --workers 5 --clips "${CLIPS:-500}" &
      workers="$workers $!"
    done
  done
fi
# shellcheck disable=SC2086
train() {
  python3 -m relay_models.training.voice "$root" "$@" ${OPTIONS:-}
}
vocoder=""
case $1 in
vocoder=*)
  if [ "${GPUS:-1}" = 2 ]; then
    CUDA_VISIBLE_DEVICES=0 train "$out/vocoder" --stages "$1" &
    vocoder=$!
  else
    train "$out" --stages "$1"
  fi
  shift
  ;;
esac
for worker in $workers; do wait "$worker"; done
if [ -n "$vocoder" ]; then
  CUDA_VISIBLE_DEVICES=1 train "$out/text" --shards "$shards" --stages "$1" "$2"
  shift 2
  wait "$vocoder"
  # The last stage hears the speaker only.
  train "$out" --join "$out/vocoder" "$out/text" --stages "$@"
elif [ $# -gt 0 ]; then
  train "$out" --shards "$shards" --stages "$@"
fi
