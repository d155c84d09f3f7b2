"""Where a thing came from: digests of files and folders, and the commit that was checked out."""

import subprocess


def git_state() -> dict[str, str]:
    """Tags `git.commit` and `git.dirty`; none outside a git checkout.

    `dvc.lock` does not count as dirt: `dvc repro` rewrites it while its stages run, and its digest is kept besides.
    """
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/dvc.lock")
    return {"git.commit": commit, "git.dirty": str(bool(changed)).lower()}


def _git(*arguments: str) -> str:
    """What git answers; empty where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
