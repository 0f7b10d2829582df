#!/bin/sh
# Trains the duplex draft model on one GPU machine: synthesisers fill a folder while the model learns from what is there.
#   draft.sh ROOT EARS OUT SECONDS [options of relay_models.training.draft]
# ROOT comes from `python -m relay_models.training.draft_data prepare DATA ROOT`, and holds the synthesisers' libraries in
# tts/ (see ears_synthesis.py). EARS is the recogniser's folder. SHARDS names a folder for the speech; one that is full
# already is used as it is. WORKERS lists the synthesisers, one process each; the default suits 16 cores. JUDGED and HELD_OUT
# are the same for held-out dialogues: their folder, and how many are said by each of two voices (150).
set -eu
root=$1 ears=$2 out=$3 seconds=$4
shift 4
shards=${SHARDS:-$(mktemp -d)}
judged=${JUDGED:-$out/judged}
mkdir -p "$out" "$shards" "$judged"
pids=""
number=0
say() { exec env OMP_NUM_THREADS=1 nice -n 5 python3 -m relay_models.training.draft_data say "$@" 2>>"$out/errors"; }
if [ -z "$(ls -A "$judged")" ]; then
  say "$root" "$judged" --kind espeak --worker 90 --seconds 120 --held-out "${HELD_OUT:-150}" &
  first=$!
  say "$root" "$judged" --kind slt --worker 91 --seconds 120 --held-out "${HELD_OUT:-150}" &
  wait "$first" $! || true  # one of them may lack its voice; what it says is in errors
fi
if [ -z "$(ls -A "$shards")" ]; then
  for kind in ${WORKERS:-espeak espeak espeak espeak kal16 kal16 awb awb awb awb rms rms rms rms}; do
    say "$root" "$shards" --kind "$kind" --worker "$number" --seconds "$seconds" &
    pids="$pids $!"
    number=$((number + 1))
  done
fi
status=0
python3 -m relay_models.training.draft "$ears" "$out" --shards "$shards" --judged "$judged" --seconds "$seconds" "$@" || status=$?
# shellcheck disable=SC2086
[ -z "$pids" ] || kill $pids 2>/dev/null || true
[ ! -s "$out/errors" ] || tail -n 3 "$out/errors"
exit $status
