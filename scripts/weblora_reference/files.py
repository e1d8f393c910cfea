"""JSON as we commit it."""

import json
import re
from pathlib import Path


def write_json(path: Path, value) -> None:
    """Indented, but with arrays of numbers on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r",\s+", ", ", m[1]) + "]", text)
    path.write_text(text + "\n", encoding="utf-8")
    if json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(value)):
        raise SystemExit(f"{path.name} does not read back as what was written")
