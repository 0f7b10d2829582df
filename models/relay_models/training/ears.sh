#!/bin/sh
# Trains the ears on one GPU machine: thirteen synthesisers fill a folder while the model learns from what is there.
#   ears.sh ROOT OUT SECONDS [options of relay_models.training.ears]
# ROOT comes from `python -m relay_models.training.ears_data DATA ROOT`, and holds the synthesisers' libraries in tts/
# (see ears_synthesis.py). SHARDS names a folder for the speech; one that is full already is used as it is.
set -eu
root=$1 out=$2 seconds=$3
shift 3
shards=${SHARDS:-$(mktemp -d)}
workers=""
if [ -z "$(ls -A "$shards")" ]; then
  number=0
  for kind in espeak espeak espeak kal16 awb awb awb awb awb rms rms rms rms; do
    OMP_NUM_THREADS=1 nice -n 5 python3 -m relay_models.training.ears_synthesis "$root" "$shards" \
      --kind "$kind" --worker "$number" --seconds "$seconds" 2>>"$shards/errors" &
    workers="$workers $!"
    number=$((number + 1))
  done
fi
status=0
python3 -m relay_models.training.ears "$root" "$out" --shards "$shards" --seconds "$seconds" "$@" || status=$?
# shellcheck disable=SC2086
[ -z "$workers" ] || kill $workers 2>/dev/null || true
[ ! -s "$shards/errors" ] || tail -n 3 "$shards/errors"
exit $status
