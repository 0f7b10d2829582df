#!/bin/sh
# Trains the ears on one GPU machine: synthesisers fill a folder while the model learns from what is there.
#   ears.sh ROOT OUT SECONDS [options of relay_models.training.ears]
# ROOT comes from `python -m relay_models.training.ears_data DATA ROOT`, and holds the synthesisers' libraries in tts/
# (see ears_synthesis.py). SHARDS names a folder for the speech; one that is full already is used as it is. WORKERS
# lists the synthesisers as KIND:SECONDS, one process each; the default suits 16 cores.
set -eu
root=$1 out=$2 seconds=$3
shift 3
shards=${SHARDS:-$(mktemp -d)}
flite="awb:$seconds awb:$seconds awb:$seconds awb:$seconds awb:$seconds rms:$seconds rms:$seconds rms:$seconds rms:$seconds"
pids=""
if [ -z "$(ls -A "$shards")" ]; then
  number=0
  for worker in ${WORKERS:-espeak:$seconds espeak:$seconds espeak:$seconds kal16:$seconds $flite}; do
    OMP_NUM_THREADS=1 nice -n 5 python3 -m relay_models.training.ears_synthesis "$root" "$shards" \
      --kind "${worker%:*}" --worker "$number" --seconds "${worker#*:}" 2>>"$shards/errors" &
    pids="$pids $!"
    number=$((number + 1))
  done
fi
status=0
python3 -m relay_models.training.ears "$root" "$out" --shards "$shards" --seconds "$seconds" "$@" || status=$?
# shellcheck disable=SC2086
[ -z "$pids" ] || kill $pids 2>/dev/null || true
[ ! -s "$shards/errors" ] || tail -n 3 "$shards/errors"
exit $status
