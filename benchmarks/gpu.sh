#!/usr/bin/env bash
# Everything that is measured on a GPU, in one call on a machine with PyTorch for CUDA and no network.
#
#   bash benchmarks/gpu.sh [--device cuda|cpu] [--quick] [--out DIR] [--wheels DIR] [--seconds 120]
#
# --seconds: that one preset may take; the other parts have limits in proportion.
# --wheels: a folder of wheels of the packages that the machine lacks, made on another machine:
#           python benchmarks/wheels.py FOLDER --have benchmarks/gpu_machine.txt
# Each part has its own time limit, and what it printed lies in --out beside the results as JSON; a part whose result is there is not run again.
set -uo pipefail

device=cuda out=outputs/gpu wheels="" quick="" seconds=120
while (($#)); do
    case $1 in
    --device) device=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    --wheels) wheels=$2 && shift 2 ;;
    --seconds) seconds=$2 && shift 2 ;;
    --quick) quick=1 && shift ;;
    *) echo "Unknown option $1: see the head of $0" >&2 && exit 2 ;;
    esac
done
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$out" && out=$(cd "$out" && pwd)
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
export PATH=$PATH:/usr/local/cuda/bin
export PYTHONUNBUFFERED=1 PYTHONPATH=$work${PYTHONPATH:+:$PYTHONPATH} MAX_JOBS=${MAX_JOBS:-$(nproc)}
if [[ -n $wheels ]]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$work/site" "$wheels"/*.whl || exit 1
    PYTHONPATH=$work/site:$PYTHONPATH
fi
# The package as it is installed: `method_configs` lies inside it.
cp -r "$root"/{semfield_ns,tests,benchmarks,pyproject.toml} "$work"
cp -r "$root/method_configs" "$work/semfield_ns/method_configs"
cd "$work" || exit 1
# Nerfstudio imports it for one of its loggers, and it is as large as all other wheels.
python3 -c 'import wandb' 2>/dev/null || touch wandb.py

part() { # name, seconds, command...
    local name=$1 limit=$2 start=$SECONDS code=0
    shift 2
    [[ -e $out/$name.done ]] && return 0
    timeout "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
    ((code)) || touch "$out/$name.done"
    echo "$name: exit code $code after $((SECONDS - start)) s"
    return "$code"
}

failed=0
python3 -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")'
if [[ $device == cuda ]]; then
    # gsplat compiles its kernels when they are first used; meanwhile, what needs none.
    part kernels $((4 * seconds)) python3 -c 'from gsplat.cuda._backend import _C; assert _C, "no CUDA compiler on the PATH"' &
fi
fields=(semantic-flow semantic-flow-tiny gsn gsn-tiny)
splats=(semantic-flow-splat semantic-flow-splat-tiny)
options=(--device "$device" --data "$out/scenes" --results "$out/presets.json" --profiles "$out/profiles" --seconds "$seconds")
if [[ -n $quick ]]; then
    options+=(--steps 2 --warm-up 1 --width 64 --frames 6 --scenes 2 --autocast False)
    fields=(semantic-flow-tiny gsn-tiny)
    splats=(semantic-flow-splat-tiny)
    speed=(--goal 10 --most-steps 20 --every 10 --sizes 2000)
else
    speed=()
fi
part fields $((4 * seconds)) python3 benchmarks/presets.py "${options[@]}" --presets "${fields[@]}" || failed=1
wait
part tests $((2 * seconds)) python3 -m pytest -q -p no:cacheprovider tests/gaussians/test_gsplat.py tests/gaussians/test_odd_cases.py || failed=1
part splats $((2 * seconds)) python3 benchmarks/presets.py "${options[@]}" --presets "${splats[@]}" || failed=1
part speed $((2 * seconds)) python3 benchmarks/gpu.py --device "$device" "${speed[@]}" || failed=1
for name in fields splats speed; do
    echo "## $name" && grep -a '^[|#]\|memory\|apart' "$out/$name.log"
done
tail -n 3 "$out/tests.log"
exit "$failed"
