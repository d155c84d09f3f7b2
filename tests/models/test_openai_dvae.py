"""OpenAI's dVAE against the modules that OpenAI published, and files that are not what they should be."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import dall_e
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from cots.errors import BadInput
from cots.models.dvae.io import load_dvae, save_dvae
from cots.models.dvae.openai import OpenAiDvae
from cots.models.dvae.openai_weights import import_openai_dvae, weight_files
from cots.models.dvae.vae import Dvae

TINY = {"n_hid": 8, "n_blk_per_group": 2, "vocab_size": 32}
Published = tuple[nn.Module, nn.Module]


def published_pair(*, seed: int = 0, **sizes: int) -> Published:
    """OpenAI's modules with random weights and biases: no path is too weak to be missed, and many codes occur."""
    torch.manual_seed(seed)
    pair = dall_e.Encoder(**sizes).eval(), dall_e.Decoder(**sizes).eval()
    for module in pair:
        for name, parameter in module.named_parameters():
            if name.endswith(".b"):
                nn.init.normal_(parameter, std=0.05)
            elif name.endswith("conv_4.w"):
                parameter.data.mul_(20)
    with torch.inference_mode():
        logits = pair[0](dall_e.map_pixels(random_images(4, 32, 32)))
    pair[0].blocks.output.conv.b.data -= logits.mean(dim=(0, 2, 3))
    return pair


def random_images(count: int, height: int, width: int) -> Tensor:
    """Patches of 8 x 8 pixels of random colours with some noise, in [0, 1]."""
    colours = torch.rand(count, 3, height // 8, width // 8)
    return (F.interpolate(colours, scale_factor=8.0) + 0.2 * torch.rand(count, 3, height, width)) / 1.2


def save_pair(folder: Path, pair: Published, **options: bool) -> Path:
    folder.mkdir(exist_ok=True)
    for name, module in zip(("encoder", "decoder"), pair, strict=True):
        torch.save(module, folder / f"{name}.pkl", **options)
    return folder


def import_pair(folder: Path, *, codes: int = 32) -> OpenAiDvae:
    """The import of whatever lies there, its digest being right."""
    files = weight_files(folder)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return import_openai_dvae(folder, sha256=digest, num_codes=codes)


def import_error(folder: Path, **options: int) -> str:
    with pytest.raises(BadInput) as error:
        import_pair(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def run_published(pair: Published, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and the decoder's output of the published modules, used as OpenAI's notebook does."""
    encoder, decoder = pair
    codes = encoder(dall_e.map_pixels(pixels)).argmax(dim=1)
    return codes, decoder(F.one_hot(codes, cast(int, decoder.vocab_size)).movedim(-1, 1).float())


CASES = [
    pytest.param(TINY, 24, True, id="tiny, zip"),
    pytest.param(TINY, 24, False, id="tiny, legacy"),
    pytest.param(TINY | {"n_blk_per_group": 1}, 16, True, id="shallow"),
    pytest.param({"vocab_size": 8192}, 64, False, id="as published, legacy"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "side", "zipped"), CASES)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_codes_and_pixels_equal_those_of_the_published_modules(
    tmp_path: Path, sizes: dict[str, int], side: int, zipped: bool
) -> None:
    pair = published_pair(**sizes)
    ours = import_pair(save_pair(tmp_path, pair, _use_new_zipfile_serialization=zipped), codes=sizes["vocab_size"])
    pixels = random_images(2, side, side + 8)
    with torch.inference_mode():
        codes, stats = run_published(pair, pixels)
        assert torch.equal(ours.encode(pixels), codes)
        assert len(set(codes.flatten().tolist())) > 5
        torch.testing.assert_close(ours.logit_laplace(codes), stats, rtol=1e-4, atol=1e-5)
        decoded = dall_e.unmap_pixels(stats[:, :3].sigmoid())
        torch.testing.assert_close(ours.decode(codes), decoded, rtol=1e-4, atol=1e-5)
        ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert torch.equal(ours.encode(pixels.contiguous(memory_format=torch.channels_last)), codes)


def test_codes_nearly_all_stay_the_same_in_bfloat16(tmp_path: Path) -> None:
    ours = import_pair(save_pair(tmp_path, published_pair(**(TINY | {"n_hid": 32}))))
    pixels = random_images(8, 64, 64)
    with torch.inference_mode():
        codes = ours.encode(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = ours.encode(pixels)
    assert float((codes == rounded).float().mean()) > 0.95


@pytest.mark.parametrize("ours", [True, False], ids=["our names", "published names"])
def test_safetensors_give_what_the_pickles_give(tmp_path: Path, ours: bool) -> None:
    pair = published_pair(**TINY)
    reference = import_pair(save_pair(tmp_path / "pickled", pair))
    (tmp_path / "safe").mkdir()
    for name, module in zip(("encoder", "decoder"), pair, strict=True):
        weights = reference.get_submodule(name).state_dict() if ours else module.state_dict()
        save_file(weights, tmp_path / "safe" / f"{name}.safetensors")
    weights_by_name = import_pair(tmp_path / "safe").state_dict()
    assert all(torch.equal(weights_by_name[name], weight) for name, weight in reference.state_dict().items())


def test_half_precision_weights_are_imported_as_float32(tmp_path: Path) -> None:
    dvae = import_pair(save_pair(tmp_path, cast(Published, tuple(module.half() for module in published_pair(**TINY)))))
    assert {weight.dtype for weight in dvae.state_dict().values()} == {torch.float32}


def test_a_saved_import_loads_as_the_same_dvae_and_can_be_imported_again(tmp_path: Path) -> None:
    dvae = import_pair(save_pair(tmp_path / "pickled", published_pair(**TINY)))
    save_dvae(dvae, tmp_path / "dvae")
    pixels = random_images(1, 16, 16)
    for again in (load_dvae(tmp_path / "dvae"), import_pair(tmp_path / "dvae")):
        assert isinstance(again, OpenAiDvae)
        assert torch.equal(again.encode(pixels), dvae.encode(pixels))


def test_the_settings_tell_which_dvae_a_folder_holds(tmp_path: Path) -> None:
    save_dvae(Dvae(num_codes=4, hidden=4, blocks=1), tmp_path)
    assert isinstance(load_dvae(tmp_path), Dvae)


@pytest.mark.parametrize("damage", ["{}", '{"kind": "other"}', "[", '{"kind": "own", "codes": 5, "hidden": 4}', None])
def test_a_damaged_folder_is_reported_with_the_command_that_repairs_it(tmp_path: Path, damage: str | None) -> None:
    save_dvae(Dvae(num_codes=4, hidden=4, blocks=1), tmp_path)
    if damage is None:
        (tmp_path / "dvae.safetensors").write_bytes(b"short")
    else:
        (tmp_path / "dvae.json").write_text(damage)
    with pytest.raises(BadInput, match="dvc repro") as error:
        load_dvae(tmp_path)
    assert "\n" not in str(error.value)


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(tmp_path: Path, form: str) -> None:
    marker = tmp_path / "ran"
    pair = published_pair(**TINY)
    pair[0].extra = Payload(marker)  # type: ignore[assignment]
    save_pair(tmp_path, pair, _use_new_zipfile_serialization=form != "legacy")
    if form == "plain pickle":
        (tmp_path / "encoder.pkl").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    assert "encoder.pkl is refused" in import_error(tmp_path)
    assert not marker.exists()
    if form != "plain pickle":
        assert "names 'posix.system'" in import_error(tmp_path)
        torch.load(tmp_path / "encoder.pkl", weights_only=False)
        assert marker.exists()  # so the payload was a real one


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_files_cut_short_anywhere_are_refused(tmp_path: Path, zipped: bool) -> None:
    save_pair(tmp_path, published_pair(**TINY), _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "decoder.pkl").read_bytes()
    for share in (0, 0.001, 0.1, 0.5, 0.99):
        (tmp_path / "decoder.pkl").write_bytes(whole[: int(share * len(whole))])
        assert "decoder.pkl" in import_error(tmp_path)


def test_other_files_are_refused_in_words(tmp_path: Path) -> None:
    save_pair(tmp_path, published_pair(**TINY))
    for content in (b"<html>not found</html>", pickle.dumps([1, 2], protocol=4), bytes(100)):
        (tmp_path / "encoder.pkl").write_bytes(content)
        assert "encoder.pkl" in import_error(tmp_path)
    torch.save({"weights": torch.ones(3)}, tmp_path / "encoder.pkl")
    assert "encoder.pkl" in import_error(tmp_path)
    for part in ("encoder", "decoder"):
        (tmp_path / f"{part}.safetensors").write_bytes(b"\xff" * 100)
    assert "encoder.safetensors" in import_error(tmp_path)


def test_weights_of_wrong_shapes_name_the_first_that_does_not_fit(tmp_path: Path) -> None:
    encoder, _ = published_pair(**TINY)
    _, decoder = published_pair(**(TINY | {"n_hid": 12}))
    assert "decoder.group_1.block_1.path.conv_1.bias is (24,), expected (16,)" in import_error(
        save_pair(tmp_path, (encoder, decoder))
    )


def test_an_encoder_in_place_of_the_decoder_is_refused(tmp_path: Path) -> None:
    encoder, _ = published_pair(**TINY)
    assert "does not hold the weights of an OpenAI dVAE" in import_error(save_pair(tmp_path, (encoder, encoder)))


def test_weights_that_only_claim_to_be_large_cost_no_memory(tmp_path: Path) -> None:
    pair = published_pair(**TINY)
    vast = torch.zeros(1).expand(2**20, 3, 2**10, 2**10)
    cast(Any, pair[0]).blocks.input.w = nn.Parameter(vast, requires_grad=False)
    assert "take more than" in import_error(save_pair(tmp_path, pair))


def test_a_module_that_holds_itself_is_refused(tmp_path: Path) -> None:
    pair = published_pair(**TINY)
    pair[0].blocks._modules["again"] = pair[0].blocks  # type: ignore[union-attr, assignment]
    assert "a module occurs twice" in import_error(save_pair(tmp_path, pair))


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_one_storage_in_many_weights_is_refused(tmp_path: Path, zipped: bool) -> None:
    pair = published_pair(**TINY)
    blocks = cast(Any, pair[0]).blocks
    blocks.input.b = blocks.group_1.block_1.res_path.conv_4.b
    assert "encoder.pkl" in import_error(save_pair(tmp_path, pair, _use_new_zipfile_serialization=zipped))


def test_absent_files_another_digest_and_another_codebook_are_reported(tmp_path: Path) -> None:
    assert "no OpenAI dVAE" in import_error(tmp_path)
    save_pair(tmp_path, published_pair(**TINY))
    assert "dvae.codebook_size is 8192, the weights" in import_error(tmp_path, codes=8192)
    with pytest.raises(BadInput, match=r"have sha256 [0-9a-f]{64}, not 0{64}"):
        import_openai_dvae(tmp_path, sha256="0" * 64, num_codes=32)
    (tmp_path / "decoder.pkl").unlink()
    assert "no OpenAI dVAE" in import_error(tmp_path)


def test_settings_are_plain_numbers(tmp_path: Path) -> None:
    save_dvae(import_pair(save_pair(tmp_path / "pickled", published_pair(**TINY))), tmp_path)
    settings = json.loads((tmp_path / "dvae.json").read_text())
    assert settings == {"kind": "openai", "codes": 32, "hidden": 8, "start": 128, "blocks": 2}
