#!/bin/sh
# Trains the duplex draft model, and the verifier of its drafts, on one machine: the brain answers the dialogues, then
# synthesisers fill a folder while the model learns from what is there, and in the end it drafts what the verifier learns.
#   draft.sh ROOT EARS OUT SECONDS [options of relay_models.training.draft]
# ROOT comes from `python -m relay_models.training.draft_data prepare DATA ROOT`, and holds the synthesisers' libraries in
# tts/ (see ears_synthesis.py). EARS is the recogniser's folder. SECONDS are those of training. All of these may be set:
#   GPUS      GPUs that train together (1)
#   ANSWER    no: the replies stay as they are written
#   WORKERS   synthesisers of training speech, one process each; the default suits 16 cores
#   SAY_S     how long they work (SECONDS)
#   HELD_OUT  synthesisers of held-out dialogues for the verifier (espeak espeak slt rms)
#   HELD      dialogues that each of those says (600)
#   SHARDS, JUDGED, VERIFY  folders of speech: for training, for judging, for the verifier; a full one is used as it is
set -eu
root=$1 ears=$2 out=$3 seconds=$4
shift 4
gpus=${GPUS:-1}
shards=${SHARDS:-$(mktemp -d)} judged=${JUDGED:-$out/judged} verify=${VERIFY:-$out/verify}
mkdir -p "$out" "$shards" "$judged" "$verify"
pids=""
run() {
  recipe=$1
  shift
  python3 -m "relay_models.training.$recipe" "$@"
}
say() { exec env OMP_NUM_THREADS=1 nice -n 5 python3 -m relay_models.training.draft_data say "$@" 2>>"$out/errors"; }
empty() { [ -z "$(ls -A "$1")" ]; }

if [ "${ANSWER:-yes}" != no ] && ! ls "$root"/answered-*.xz >/dev/null 2>&1; then
  part=0 answers=""
  while [ $part -lt "$gpus" ]; do
    run draft_answers "$root" --part "$part/$gpus" &
    answers="$answers $!"
    part=$((part + 1))
  done
  for pid in $answers; do wait "$pid"; done
fi

number=0
if empty "$shards"; then
  for kind in ${WORKERS:-espeak espeak espeak espeak kal16 kal16 awb awb awb rms rms rms}; do
    say "$root" "$shards" --kind "$kind" --worker "$number" --seconds "${SAY_S:-$seconds}" &
    pids="$pids $!"
    number=$((number + 1))
  done
fi
if empty "$verify"; then
  number=200
  for kind in ${HELD_OUT:-espeak espeak slt rms}; do
    say "$root" "$verify" --kind "$kind" --worker "$number" --seconds "$seconds" --held-out "${HELD:-600}" &
    pids="$pids $!"
    number=$((number + 1))
  done
fi
if empty "$judged"; then
  say "$root" "$judged" --kind espeak --worker 100 --seconds 60 --held-out 100 &
  first=$!
  say "$root" "$judged" --kind slt --worker 101 --seconds 60 --held-out 100 &
  wait "$first" $! || true  # one of them may lack its voice; what it says is in errors
fi

status=0
run draft "$ears" "$out" --shards "$shards" --judged "$judged" --gpus "$gpus" --seconds "$seconds" "$@" || status=$?
# shellcheck disable=SC2086
[ -z "$pids" ] || kill $pids 2>/dev/null || true
if [ $status = 0 ]; then
  # How far a server may trust what the model signals: for `draft_export --turn-ends`.
  run draft_eval "$ears" "$out/packed" "$verify" --json "$out/signals.json" >/dev/null || status=$?
  run drafts "$ears" "$out/packed" "$out/rated" --shards "$verify" --root "$root" --gpus "$gpus" &&
    run verifier "$out/verifier" "$out/rated" || status=$?
fi
[ ! -s "$out/errors" ] || tail -n 3 "$out/errors"
exit $status
