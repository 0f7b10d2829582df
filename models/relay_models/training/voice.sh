#!/bin/sh
# Trains the voice on one GPU machine, from nothing or from what OUT holds:
#   voice.sh ROOT OUT STAGE=SECONDS ...        e.g. voice.sh ROOT OUT vocoder=450 align=60
# ROOT comes from `python -m relay_models.training.voice_data DATA ROOT` and holds Flite's libraries in tts/ (see
# ears_synthesis.py). SHARDS names a folder for synthetic speech; one that is full already is used as it is. The vocoder
# needs none, so that it is trained, when it comes first, while ten synthesisers work.
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
case $1 in
vocoder=*)
  # shellcheck disable=SC2086
  python3 -m relay_models.training.voice "$root" "$out" --stages "$1" ${OPTIONS:-}
  shift
  ;;
esac
for worker in $workers; do wait "$worker"; done
# shellcheck disable=SC2086
[ $# -eq 0 ] || python3 -m relay_models.training.voice "$root" "$out" --shards "$shards" --stages "$@" ${OPTIONS:-}
