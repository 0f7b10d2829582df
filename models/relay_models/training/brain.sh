#!/bin/sh
# Trains and ships the embedded language model again: brain.sh DATA [OUT]
#
# DATA holds books.txt.gz, dialogues.jsonl.gz and prompts.txt.gz; OUT takes checkpoints (about 200 MB).
# Needs the `train` extra, run from the root of the repository; about five minutes on one H200.
set -eu
data=${1:?usage: brain.sh DATA [OUT]}
out=${2:-build/brain}
mkdir -p "$out"
export PYTHONPATH=models TOKENIZERS_PARALLELISM=false

python3 -m relay_models.training.brain_tokenizer "$data" "$out/tokenizer.json"
python3 -m relay_models.training.brain "$data" "$out" --tokenizer "$out/tokenizer.json"
python3 -m relay_models.training.brain_export "$out/base-weights" "$out/tokenizer.json"
