"""Prints the commands that README.md gives a reader, so that exactly these are run.

``python3 .ci/readme_commands.py run`` prints the fenced bash block that follows the comment
``<!-- ci: run -->``. ``rest`` prints the blocks without such a comment, in their order, one command a line:
as they stand, but for :data:`INSTEAD`. Needs nothing beyond the standard library: it runs before anything is
installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"

# What README.md says, once, and what is run instead: files that stand_ins.py writes into $small for those of
# the reader, and fewer steps, seeds, trials and turns of the same command.
INSTEAD = (
    ("weights=null data.twins=0", "weights=null data.twins=0 train.steps=2 'evaluation.rows=[minvis]'"),
    (
        "experiments/study.py --seeds 0 1 2",
        "experiments/study.py train.steps=2 'evaluation.rows=[identity,minvis,visage,oracle]' --seeds 0",
    ),
    (
        "data.root=DIR weights=FILE eval_only=true",
        "data.root=$small/data/ytvis2019 weights=$small/visage.pth eval_only=true data.test_short_side=64",
    ),
    (
        "data.root=DIR data.stills.root=COCO weights=model_final_3c8ec9.pkl",
        "data.root=$small/data/ovis data.stills.root=$small/coco weights=$small/model_final_3c8ec9.pkl "
        "train.steps=1 train.batch_size=1 train.num_frames=2 train.loss.num_points=16 "
        "'data.train_short_sides=[32]' data.crop=0 data.test_short_side=32",
    ),
    ("data=ytvis data.root=DIR", "data=ytvis data.root=$small/videos train.steps=2"),
    ("vistk data convert masks IN -o DIR", "vistk data convert masks $small/masks -o $small/converted"),
    ("vistk data check DIR", "vistk data check $small/converted"),
    (
        "benchmarks/inference.py --threads 2 --out benchmarks/results/inference.csv",
        "benchmarks/inference.py --threads 2 --out $small/inference.csv --segmenter tiny --size 96x160 "
        "--output 96x160 --frames 1 --turns 1 --no-peaks",
    ),
    ("GT.json RESULTS.json [MORE.json ..]", "$small/GT.json $small/RESULTS.json $small/MORE.json"),
    ("--table OUT.md", "--table $small/OUT.md"),
    ("ovis/gt.json ovis/{mine,theirs}.json", "$small/ovis/gt.json $small/ovis/{mine,theirs}.json"),
    (
        "ytvis21/gt.json ytvis21/{mine,theirs}.json",
        "$small/ytvis21/gt.json $small/ytvis21/{mine,theirs}.json",
    ),
    ("sweeps/components.yaml", "sweeps/components.yaml seed=0 train.steps=2"),
    ("tracker=minvis,visage seed=0,1,2", "tracker=minvis,visage seed=0,1 train.steps=2"),
    ("RUN/weights.safetensors --trials 200", "runs/synthetic/visage/default/weights.safetensors --trials 2"),
)


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


def rest(text: str) -> str:
    """All other bash blocks, with what stands for a reader's files.

    Raises:
        ValueError: a text of :data:`INSTEAD` is not there exactly once, or a placeholder has no stand-in.
    """
    blocks = re.findall(r"(?<!-->\n)^```bash\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)
    script = "".join(blocks).replace("\\\n", " ")
    for said, run in INSTEAD:
        if script.count(said) != 1:
            raise ValueError(f"README.md: expected {said!r} once in its commands, found {script.count(said)}")
        script = script.replace(said, run)
    for line in script.splitlines():
        if found := re.search(r"(?<=[ =])[A-Z]{2,}(?:$|[ ./])", line.split(" #")[0]):
            raise ValueError(f"README.md: nothing stands for {found[0].strip(' ./')} in {line!r}")
    return script.strip()


def main() -> int:
    try:
        text, name = README.read_text(encoding="utf-8"), sys.argv[1]
        print(rest(text) if name == "rest" else command(text, name))
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
