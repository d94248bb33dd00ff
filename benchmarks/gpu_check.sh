#!/usr/bin/env bash
# Measures AMPO on this machine's GPU and writes ${OUT:-build}/gpu.md; see docs/gpu.md. Options go to gpu_check.py.
# Needs a Python (PYTHON, default python3) that can import vLLM, DeepSpeed and AMPO's dependencies, and no network.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
out=${OUT:-$root/build}
work=$(mktemp -d "${TMPDIR:-/tmp}/gpu-check.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Without an installation of this very tree, its packages and entry points are put on the path.
if ! (cd "$work" && "$python" - "$root") <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

try:
    version("ampo-rl")
except PackageNotFoundError:
    sys.exit(1)
spec = find_spec("ampo_core")
sys.exit(0 if spec and spec.origin and spec.origin.startswith(sys.argv[1] + "/") else 1)
PY
then
  "$python" "$root/benchmarks/gpu/distribution.py" "$work/site"
  export PYTHONPATH="$work/site:$root:$root/registry:$root/plugins${PYTHONPATH:+:$PYTHONPATH}"
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
"$python" "$root/benchmarks/gpu_check.py" --out "$out/gpu.md" --folder "$work" "$@"
