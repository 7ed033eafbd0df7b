"""`semfield process` over a list of videos: in one run, and in shards that are killed at random and started again.

    python benchmarks/shards.py                        # 40 videos in 4 shards, each killed twice
    python benchmarks/shards.py --videos 6 --shards 2

Prints whether both end with the same files, and how long a video took. What is not compared are the markers of steps,
which hold seconds and hashes of paths, and the seconds in reports.
"""

import hashlib
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro
from training import machine

from tests.process.helpers import sliding, write_video

OPTIONS = ("--num-frames", "6", "--max-size", "64", "--models", "classical", "--threads", "1")


def start(listed: Path, output: Path, shard: str) -> subprocess.Popen:
    """A job."""
    code = "from semfield_ns.cli import main; main()"
    command = [sys.executable, "-c", code, "process", str(listed), "--output-dir", str(output), "--shard", shard]
    return subprocess.Popen([*command, *OPTIONS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def files(folder: Path) -> dict[str, str]:
    """Digest of each file by its path; seconds and markers of steps are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".log" and path.parent.name != "steps":
            content = path.read_bytes()
            if path.suffix in (".json", ".html", ".md", ".txt"):
                content = re.sub(rb'("seconds": |[\d.]+ s\b)[\d.]*', b"", content.replace(bytes(folder), b""))
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def main(videos: int = 40, shards: int = 4, kills: int = 2, seed: int = 0) -> None:
    """Measure.

    Args:
        videos: How many.
        shards: How many jobs, one after the other.
        kills: Of each job.
        seed: Of the moments of kills.
    """
    moments = random.Random(seed)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = [f"video{number:02d}.mp4" for number in range(videos)]
        for number, name in enumerate(names):
            write_video(folder / name, sliding(8, size=(64, 48), seed=number))
        listed = folder / "videos.txt"
        listed.write_text("\n".join(names))
        begun = time.monotonic()
        code = start(listed, folder / "one", "1/1").wait()
        seconds = time.monotonic() - begun
        print(f"One run: exit code {code}, {seconds:.0f} s, {seconds / videos:.1f} s a video.", flush=True)
        for shard in range(1, shards + 1):
            for _ in range(kills):
                job = start(listed, folder / "shards", f"{shard}/{shards}")
                time.sleep(moments.uniform(0, seconds / shards))
                job.kill()
                job.wait()
            code = start(listed, folder / "shards", f"{shard}/{shards}").wait()
            print(f"Shard {shard}: exit code {code}", flush=True)
        one, other = files(folder / "one"), files(folder / "shards")
        differ = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        print(f"{len(one)} files of one run, {len(other)} of shards, {len(differ)} differ: {differ[:12]}")
    print(machine())


if __name__ == "__main__":
    tyro.cli(main)
