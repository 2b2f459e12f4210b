#!/usr/bin/env bash
# What a machine with a GPU can add to the results, most telling first, from the project's root in its environment:
#   bash bench/gpu.sh [FOLDER] [HOURS]     FOLDER (default: gpu-results) gets the output of each part
# Each part keeps its results if the time ends: reports in bench/results/, and DVC's cache, from which the same command
# goes on. The suite runs if J-HMDB's clips are in data/videos/jhmdb.
set -uo pipefail
folder=${1:-gpu-results} hours=${2:-4} failed=0
mkdir -p "$folder"
ends=$(($(date +%s) + hours * 3600))

part() { # part NAME COMMAND...: run a command until the time ends
    local name=$1 left=$((ends - $(date +%s))) code=0
    shift
    ((left > 0)) || { echo "$name: no time left"; return; }
    echo "$name: $*"
    timeout --signal INT --kill-after 60 "$left" "$@" > "$folder/$name.txt" 2>&1 || code=$?
    ((code == 0)) || { echo "$name: exit $code, see $folder/$name.txt"; failed=1; }
}

part device python -c 'import torch; print(torch.__version__, torch.cuda.get_device_name(0))'
part tests pytest tests/models/test_gpu.py
part models python -m bench.models --compiled
part rehearse actionbench rehearse --suite all
if [[ -d data/videos/jhmdb ]]; then
    part mobilenet dvc exp run -S suite=mobilenet -S protocols.center112.size=224 -S datasets.jhmdb.decode.short_side=256 \
        -S recipes.mobilenet.size=224 -S recipes.mobilenet-frozen-norms.size=224 -S recipes.mobilenet-scratch.size=224 \
        -S experiments.mobilenet-istpa.knobs.positions=7 -S experiments.mobilenet-istpa-no-losses.knobs.positions=7
fi
exit $failed
