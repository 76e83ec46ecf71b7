#!/usr/bin/env bash
# The whole workflow on a small generated corpus: pack it, train with two algorithms, compare.
# `make demo` runs it; with 4 ranks on 2 cores it takes a few minutes.
set -euo pipefail

out=${1:-runs/demo}
ranks=${RANKS:-4}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # ranks share the cores already
# More ranks than cores is fine on one machine. Never inside Slurm, where it would put all ranks
# on one node.
launch=(mpirun -np "$ranks" --oversubscribe --bind-to none)

step() { printf '\n== %s\n' "$*"; }

rm -rf "$out"
mkdir -p "$out"

step "a small corpus in Kaldi's format"
hpcddl prep mini-corpus "$out/corpus"

step "the command that packs Switchboard packs it"
hpcddl prep kaldi --data "$out/corpus/data" --ali "$out/corpus/ali" --out "$out/shards"

for algorithm in ssgd dpsgd; do
  step "train on $ranks ranks with $algorithm"
  "${launch[@]}" hpcddl train "mini.$algorithm" data.path="$out/shards" --out "$out/$algorithm"
done

step "compare"
hpcddl compare "$out/ssgd" "$out/dpsgd" --out "$out/comparison.png"
