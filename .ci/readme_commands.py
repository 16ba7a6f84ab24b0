"""Prints the commands that README.md gives a reader, so that exactly these are run.

``python3 .ci/readme_commands.py run`` prints the fenced bash block that follows the comment
``<!-- ci: run -->``. Needs nothing beyond the standard library: it runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def command(text: str, name: str) -> str:
    """The bash block marked by ``<!-- ci: name -->`` in ``text``.

    Raises:
        ValueError: the mark, with a block right after it, is not there exactly once.
    """
    marks = re.findall(rf"^<!-- ci: {re.escape(name)} -->$", text, re.MULTILINE)
    pattern = rf"^<!-- ci: {re.escape(name)} -->\n\s*```bash\n(.+?)^```$"
    blocks = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    if len(marks) != 1 or len(blocks) != 1:
        raise ValueError(
            f"README.md: expected '<!-- ci: {name} -->' once, followed by a ```bash block; "
            f"found the comment {len(marks)} times, with a block {len(blocks)} times"
        )
    return str(blocks[0]).strip()


def main() -> int:
    try:
        print(command(README.read_text(encoding="utf-8"), sys.argv[1]))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
