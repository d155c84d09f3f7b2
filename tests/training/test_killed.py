"""A stage that is killed anywhere between two writes ends, when it is run again, with the files of one that was not."""

import shutil
import signal
import tarfile
from collections.abc import Callable
from io import BytesIO
from itertools import count
from pathlib import Path

import pytest
import yaml

from tests.kill_points import contents, killed_everywhere, run
from tests.training.conftest import tiny_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
Encoded = Callable[..., bytes]
Folders = Callable[[], Path]


@pytest.fixture
def folders(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Makes working folders with the parameters of a tiny run and a store of their own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    values = tiny_params(prepare={"samples_per_shard": 2, "size": 32}).model_dump(mode="json", by_alias=True)
    values["source"] = {"kind": "folder", "path": str(tmp_path / "pictures"), "holdout": {"val": 0.3, "test": 0.0}}
    numbers = count()

    def fresh() -> Path:
        folder = tmp_path / f"run-{next(numbers)}"
        folder.mkdir()
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
        shutil.copy(empty_store, folder / "mlflow.db")
        return folder

    return fresh


def outputs(folder: Path) -> dict[str, str]:
    """All files of a run but its inputs and what differs from run to run."""
    own = contents(folder)
    return {
        name: own[name] for name in own if not name.startswith(("mlflow", "mlartifacts", "params.yaml", "run.json"))
    }


def assert_all_alike(folders: list[Path], min_steps: int) -> None:
    """All runs left the same files; there were so many of them at least."""
    assert len(folders) >= min_steps
    first = outputs(folders[0])
    for number, folder in enumerate(folders[1:], start=2):
        assert outputs(folder) == first, f"killed at step {number}"


PREPARE = ["cots.stages.prepare", str(ROOT / "withdrawn.csv"), "data/shards", "data/m.parquet", "data/r.parquet"]


def test_prepare(folders: Folders, tmp_path: Path, make_image: Encoded, fork_python: str) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = ["image,caption"]
    for number in range(2):
        (pictures / f"{number}.jpg").write_bytes(make_image(seed=number))
        rows.append(f"{number}.jpg,picture {number}")
    (pictures / "captions.csv").write_text("\n".join(rows))
    ended = list(killed_everywhere(fork_python, folders, *PREPARE))
    assert_all_alike(ended, min_steps=15)
    assert {path.name for path in (ended[0] / "data").iterdir()} == {"shards", "m.parquet", "r.parquet"}


def test_prepare_goes_on_with_the_tars_that_it_has_opened(
    folders: Folders, tmp_path: Path, make_image: Encoded, fork_python: str
) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        with tarfile.open(tmp_path / f"pictures/{number}.tar", "w") as tar:
            for name in ("a.jpg", "b.jpg"):
                member, image = tarfile.TarInfo(name), make_image(seed=number)
                member.size = len(image)
                tar.addfile(member, BytesIO(image))
    steps = {  # before which it is killed, and samples that are opened afterwards
        "000000.jsonl.partial": 6,
        "000001.jsonl": 4,
        "000002.jsonl.partial": 2,
        "image-00001.tar.partial": 0,
        "m.parquet.partial": 0,
    }

    def folder_of_tars() -> Path:
        folder = folders()
        values = yaml.safe_load((folder / "params.yaml").read_text())
        values["source"]["kind"] = "webdataset"
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
        return folder

    ended = [folder_of_tars()]
    assert run(fork_python, ended[0], "0", *PREPARE).returncode == 0
    for where, opened in steps.items():
        ended.append(folder_of_tars())
        assert run(fork_python, ended[-1], where, *PREPARE).returncode == -signal.SIGKILL, where
        again = run(fork_python, ended[-1], "0", *PREPARE)
        assert again.returncode == 0, again.stderr
        assert f"prepare: {f'{opened} of ' if opened < 6 else ''}6 samples in" in again.stderr
    assert_all_alike(ended, min_steps=6)


def test_tokenize(folders: Folders, tiny_data: Path, tokenized: Path, fork_python: str) -> None:
    inputs = [*data_of(tiny_data), tokenized / "dvae"]
    command = ["cots.stages.tokenize", *map(str, inputs), "data/tokens", "models/tokenizer"]
    assert_all_alike(list(killed_everywhere(fork_python, folders, *command)), min_steps=4)


@pytest.mark.parametrize("where", ["train_dvae.pt.partial", "checkpoints"])
def test_train_dvae_within_its_first_checkpoint(
    folders: Folders, tiny_data: Path, fork_python: str, where: str
) -> None:
    command = ["cots.stages.train_dvae", *map(str, data_of(tiny_data)), "models/dvae", "reports/dvae"]
    killed, whole = folders(), folders()
    assert run(fork_python, killed, where, *command).returncode == -signal.SIGKILL
    for folder in (killed, whole):
        assert run(fork_python, folder, "0", *command).returncode == 0
    assert outputs(killed) == outputs(whole)


def test_the_end_of_train_dvae(folders: Folders, tiny_data: Path, fork_python: str) -> None:
    command = ["cots.stages.train_dvae", *map(str, data_of(tiny_data)), "models/dvae", "reports/dvae"]
    trained = trained_until(fork_python, folders, command, "dvae.safetensors")
    assert_all_alike(list(killed_everywhere(fork_python, trained, *command)), min_steps=15)


def test_the_end_of_pretrain(folders: Folders, tiny_data: Path, tokenized: Path, fork_python: str) -> None:
    inputs = [*data_of(tiny_data), tokenized / "tokens", tokenized / "tokenizer"]
    command = ["cots.stages.pretrain", *map(str, inputs), "model", "report", "run.json"]
    trained = trained_until(fork_python, folders, command, "curves.csv.partial")
    ended = [trained()]
    assert run(fork_python, ended[0], "0", *command).returncode == 0
    for where in ("pairs.parquet.partial", "model.safetensors", "model.partial", "run.json.partial", "pretrain.pt"):
        ended.append(trained())
        assert run(fork_python, ended[-1], where, *command).returncode == -signal.SIGKILL, where
        assert run(fork_python, ended[-1], "0", *command).returncode == 0, where
    assert_all_alike(ended, min_steps=6)
    assert all((folder / "run.json").is_file() for folder in ended)
    assert not list((ended[0] / "runs/checkpoints").iterdir())


def data_of(folder: Path) -> list[Path]:
    return [folder / "shards", folder / "manifest.parquet"]


def trained_until(python: str, folders: Folders, command: list[str], file: str) -> Folders:
    """Makes folders of a run that was killed when it had trained, before the first step on a file that it writes."""
    trained = folders()
    assert run(python, trained, file, *command).returncode == -signal.SIGKILL

    def at_the_end() -> Path:
        folder = folders()
        shutil.copytree(trained / "runs", folder / "runs")
        return folder

    return at_the_end
