#!/usr/bin/env bash
# Adapters that weblora writes, in llama.cpp: `make interop`. Needs Python, a C++ compiler, and SmolLM2 (fetched when it is not there).
set -euo pipefail
cd "$(dirname "$0")/../.."

model=${WEBLORA_SMOLLM2:-$(scripts/fetch-smollm2.sh)}
python=${WEBLORA_INTEROP_PYTHON:-}
if [ -z "$python" ]; then
    venv=${WEBLORA_TOOLS:-$PWD/.tools}/interop
    python=$venv/bin/python
    [ -x "$python" ] || python3 -m venv "$venv"
    "$python" -c "import llama_cpp, gguf, safetensors" 2>/dev/null || "$python" -m pip install --quiet -r scripts/interop/requirements.txt
fi
exec "$python" scripts/interop/llama_cpp_adapter.py "${WEBLORA_BINARY:-target/release/weblora}" "$model"
