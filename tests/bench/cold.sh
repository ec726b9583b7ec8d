#!/usr/bin/env bash
# cold.sh [RUNS]: whole-process time of a cold `galley render` (private node: process start to PNG), and of a diffusers script that does the
# same job with the same weights, in turn. diffusers is optional: PYTHON names an interpreter that has it (with torch and transformers).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
galley=$root/build/release/bin/galley
runs=${1:-5}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GALLEY_HOME=$work/home
[ -x "$galley" ] || { echo "build first: ./galley.sh --version" >&2; exit 2; }

cat >"$work/peer.py" <<'PEER'
import sys, torch
from diffusers import StableDiffusionPipeline, DDIMScheduler
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32, safety_checker=None)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
g = torch.Generator("cpu").manual_seed(1)
pipe("a red apple", num_inference_steps=20, guidance_scale=5.0, height=128, width=128, generator=g).images[0].save(sys.argv[2])
PEER

# seconds COMMAND...: its wall time.
seconds() {
  local from=$EPOCHREALTIME
  "$@" >/dev/null 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
  awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f\n", b - a }'
}
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

peer=no
"$python" -c 'import diffusers, torch, transformers' 2>/dev/null && peer=yes
for _ in $(seq "$runs"); do
  seconds "$galley" render "a red apple" --seed 1 -o "$work/ours.png" >>"$work/ours"
  [ $peer = no ] || seconds "$python" "$work/peer.py" "$root/models/emoji" "$work/peer.png" >>"$work/peer"
done
ours=$(median "$work/ours")
echo "cold galley render, 128x128, 20 steps: median $ours s of $runs ($(sort -n "$work/ours" | tr '\n' ' '))"
if [ $peer = yes ]; then
  theirs=$(median "$work/peer")
  echo "diffusers script, the same job:        median $theirs s; ratio $(awk -v a="$ours" -v b="$theirs" 'BEGIN { printf "%.3f", a / b }')"
else
  echo "diffusers script: skipped, $python has no diffusers (pip install diffusers torch transformers accelerate; PYTHON=...)"
fi
