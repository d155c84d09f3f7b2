"""The git commit of the checkout, for lineage."""

import subprocess


def git_state() -> dict[str, str]:
    """Tags `git.commit` and `git.dirty`; empty outside a git checkout.

    Changes of `dvc.lock` do not count as dirty: `dvc repro` rewrites it while stages run, and its digest is recorded
    separately.
    """
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/dvc.lock")
    return {"git.commit": commit, "git.dirty": str(bool(changed)).lower()}


def _git(*arguments: str) -> str:
    """Output of a git command; empty without git, a repository or a commit."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
