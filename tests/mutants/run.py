#!/usr/bin/env python3
"""Runs the tests of keytide-dataflow against known mistakes, and prints which of them no test finds.

    tests/mutants/run.py [--jobs N] [--near] [NAME...]

The tracked files are copied to target/mutants/, where every mistake of mutants.toml is built in, each behind its name;
one build has them all, and the environment variable KEYTIDE_MUTANT switches one on. The product's own source has no
trace of it. First the tests must pass without any. With --near, only the tests of a mistake's own half are run (those
of the detector, or the others), which takes a third of the time. Exit code: 0 if every mistake is found, else 1.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "mutants"
TREE = FOLDER / "tree"
# Not the workspace's own: cargo would take what is built here for it.
TARGET = FOLDER / "target"
# A mistake may make a test run for ever; the slowest one takes a fifth of this on two idle cores.
LIMIT_S = 1_800

SWITCH = """
pub(crate) fn is_mutant(name: &str) -> bool {
    static MUTANT: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("KEYTIDE_MUTANT").ok());
    MUTANT.as_deref() == Some(name)
}
"""


def plant(mutants):
    """Copies the tracked files and builds the mistakes in."""
    shutil.rmtree(TREE, ignore_errors=True)
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, TREE / name)
    source = TREE / "dataflow/src"
    for name, mutant in mutants.items():
        file = source / mutant["file"]
        text = file.read_text()
        if text.count(mutant["sound"]) != 1:
            sys.exit(f"{name}: `{mutant['sound']}` stands {text.count(mutant['sound'])} times in {mutant['file']}, not once")
        switch = f'(if crate::is_mutant("{name}") {{ {mutant["mutant"]} }} else {{ {mutant["sound"]} }})'
        file.write_text(text.replace(mutant["sound"], switch))
    with (source / "lib.rs").open("a") as file:
        file.write(SWITCH)


def build():
    """Builds the tests; returns their binaries, that of the unit tests first."""
    command = ["cargo", "test", "-p", "keytide-dataflow", "--no-run", "--message-format=json"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(TARGET)}
    built = subprocess.run(command, cwd=TREE, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    tests = [one for one in messages if one.get("executable") and one.get("profile", {}).get("test")]
    tests.sort(key=lambda one: "lib" not in one["target"]["kind"])
    return [one["executable"] for one in tests]


def halves_of(mutant, near):
    """Which tests are run one after the other, as arguments of a test binary."""
    halves = [["detect::"], ["--skip", "detect::"]]
    if not mutant.get("detect", False):
        halves.reverse()
    return halves[:1] if near else halves


def first_failure(binaries, name, mutant, near):
    """Runs the tests until one fails; returns its name, or None."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RUST_")}
    environment |= {"KEYTIDE_MUTANT": name, "PROPTEST_MAX_SHRINK_ITERS": "0"}
    ends = time.monotonic() + LIMIT_S
    for arguments in halves_of(mutant, near):
        for binary in binaries:
            command = ["timeout", str(max(1, int(ends - time.monotonic()))), binary, "--test-threads=1", *arguments]
            tests = subprocess.Popen(
                command, cwd=TREE / "dataflow", env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )
            failed = None
            for line in tests.stdout:
                if line.startswith("test ") and line.rstrip().endswith("FAILED"):
                    failed = line.split()[1]
                    tests.terminate()
                    break
            tests.stdout.close()
            code = tests.wait()
            if failed or code == 124:
                return failed or "(never ends)"
            if code != 0:
                return "(ends with a panic)"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--near", action="store_true")
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args()
    mutants = tomllib.loads((HERE / "mutants.toml").read_text())
    if unknown := set(options.names) - set(mutants):
        sys.exit(f"no such mutants: {', '.join(sorted(unknown))}")
    plant(mutants)
    binaries = build()
    if not options.names and (broken := first_failure(binaries, "", {}, False)):
        sys.exit(f"without a mutant {broken} fails")
    chosen = {name: mutants[name] for name in options.names or mutants}
    survivors = []
    print("| mutant | found by |\n|---|---|", flush=True)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = {pool.submit(first_failure, binaries, name, chosen[name], options.near): name for name in chosen}
        for run in concurrent.futures.as_completed(runs):
            name, failure = runs[run], run.result()
            survivors += [] if failure else [name]
            print(f"| `{name}` | {f'`{failure}`' if failure else '**nothing**'} |", flush=True)
    print(f"\n{len(chosen)} mutants, {len(survivors)} survivors: {', '.join(survivors) or 'none'}")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
