"""``restormer weights``, and where the restoring subcommands find theirs."""

from __future__ import annotations

import collections
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import servers
import torch
from helpers import KINDS, TINY, random_pixels, read, restormer, save, tiny_network, write
from safetensors.torch import load_file
from servers import Server

from restormer_cli.errors import WeightsError
from restormer_cli.network.architecture import Restormer, RestormerConfig
from restormer_cli.tasks import VARIANTS, Options, find_variant, shipped_options
from restormer_cli.weights import registry as weights_registry
from restormer_cli.weights.checkpoint import build_network, open_checkpoint
from restormer_cli.weights.registry import known_files
from restormer_cli.weights.selection import find_weights

OFFICIAL = [shipped_options(variant.name).weights["file"] for variant in VARIANTS]
UNKNOWN = "gaussian_gray_denoising_sigma25.pth"  # nobody published its hash


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("RESTORMER_HOME", str(folder))
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    with servers.serving() as state:
        yield state


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a file the official one: ``registry(name, path)``; its networks are tiny."""
    real = shipped_options
    digests: dict[str, str] = {}

    def options(name: str) -> Options:
        shipped = real(name)
        file = shipped.weights["file"]
        if name.startswith("compact"):
            return shipped
        return Options(
            name,
            {**shipped.network, **TINY},
            {**shipped.weights, "bytes": None, "sha256": digests.get(file)},
        )

    monkeypatch.setattr(weights_registry, "shipped_options", options)
    return lambda name, path: digests.__setitem__(name, sha256(path))


def run_derain(tmp_path: Path, *words: object) -> Any:
    write(tmp_path / "in" / "a.png", random_pixels(8, 8))
    out = tmp_path / "out"
    return restormer("derain", "--input-dir", tmp_path / "in", "--result-dir", out, *words)


# --- networks of the official shapes -----------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def official(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A full-size checkpoint, random, saved as the authors save theirs: its kind and path."""
    path = tmp_path_factory.mktemp("official") / f"{request.param}.pth"
    network = Restormer(RestormerConfig(**KINDS[request.param]))
    state = collections.OrderedDict((n, t.cpu()) for n, t in network.state_dict().items())
    torch.save({"params": state}, path)
    yield request.param, path
    path.unlink()


COMMANDS = {
    "with_bias": [("derain",), ("deblur",), ("deblur", "--kind", "defocus")],
    "bias_free": [("denoise",), ("denoise", "--kind", "color", "--sigma", "50")],
    "gray": [("denoise", "--kind", "gray"), ("denoise", "--kind", "gray", "--sigma", "15")],
    "dual_pixel": [("dual-pixel",)],
}


def test_every_subcommand_runs_with_a_checkpoint_of_the_official_shape(
    official: Any, tmp_path: Path
) -> None:
    kind, path = official
    for side in ("", "inputL", "inputR"):
        write(tmp_path / "in" / side / "a.png", random_pixels(9, 16))
    shown = restormer("weights", "show", path)
    assert shown.status == 0
    *_, words = COMMANDS[kind]  # they all load it in the same way
    ran = restormer(
        *(*words, "--input-dir", tmp_path / "in", "--result-dir", tmp_path / "out"),
        *("--weights", path),
    )
    assert ran.status == 0, ran.err
    assert read(tmp_path / "out" / "a.png").shape == (9, 16, 3)
    for words in COMMANDS[kind]:
        assert find_variant(words[0], *words[2:3]).label.split(" --sigma")[0] in shown.out
    assert build_network(path).config == RestormerConfig(**KINDS[kind])


@pytest.mark.parametrize("official", ["gray"], indirect=True)
def test_official_file_of_unknown_hash_is_downloaded_pinned_and_used(
    official: Any, server: Server, tmp_path: Path, home: Path
) -> None:
    _, path = official
    server.files[UNKNOWN] = path.read_bytes()
    ran = restormer("weights", "download", UNKNOWN.removesuffix(".pth"), "--from", server.address)
    assert ran.status == 0, ran.err
    assert ran.lines == [str(home / UNKNOWN)]
    assert "no separate grant for the weights" in ran.err
    assert f"pinned to SHA-256 {sha256(path)}" in ran.err
    assert (home / f"{UNKNOWN}.sha256").read_text().split() == [sha256(path), UNKNOWN]

    write(tmp_path / "in" / "a.png", random_pixels(8, 8, 1))
    words = ("denoise", "--kind", "gray", "--sigma", 25, "--input-dir", tmp_path / "in")
    words += ("--weights", "official")
    ran = restormer(*words, "--result-dir", tmp_path / "out", "--json")
    assert ran.status == 0, ran.err
    assert f'"official {UNKNOWN}"' in ran.out

    with (home / UNKNOWN).open("r+b") as file:  # and checked from now on
        file.seek(-1, 2)
        file.write(b"\1")
    ran = restormer(*words, "--result-dir", tmp_path / "again")
    assert ran.status == 2
    assert "is not what was pinned" in ran.err
    for digest in (sha256(path), sha256(home / UNKNOWN)):
        assert digest in ran.err
    assert restormer("weights", "verify").status == 1


def test_file_that_is_not_the_official_one_is_refused_everywhere(
    server: Server, tmp_path: Path, home: Path
) -> None:
    known = shipped_options("derain").weights["sha256"]
    fake = save(tiny_network(), tmp_path / "fake.pth")
    server.files["deraining.pth"] = fake.read_bytes()
    ran = restormer("weights", "download", "deraining", "--from", server.address)
    assert ran.status == 1
    assert ran.out == ""
    error = ran.err.splitlines()[-1]
    assert error.startswith("error: ")
    assert known in error
    assert sha256(fake) in error
    aside = home / f"deraining.pth.wrong-{sha256(fake)[:12]}"
    assert str(aside) in error
    assert aside.read_bytes() == fake.read_bytes()
    assert not (home / "deraining.pth").exists()

    (home / "deraining.pth").write_bytes(fake.read_bytes())  # put there by hand
    for choice in ("official", "auto", "deraining"):
        ran = run_derain(tmp_path, "--weights", choice)
        assert ran.status == 2
        assert known in ran.err
        assert sha256(fake) in ran.err
    assert run_derain(tmp_path, "--weights", home / "deraining.pth").status == 0
    assert (
        "not the official deraining.pth"
        in restormer("weights", "show", fake.parent / "home" / "deraining.pth").out
    )


def test_file_with_the_known_hash_is_downloaded_verified_and_used(
    server: Server, tmp_path: Path, home: Path, registry: Any
) -> None:
    file = save(tiny_network(), tmp_path / "mine.pth")
    registry("deraining.pth", file)
    server.files["deraining.pth"] = file.read_bytes()
    ran = restormer("weights", "download", "deraining.pth", "--from", server.address)
    assert ran.status == 0, ran.err
    assert ran.lines == [str(home / "deraining.pth")]
    ran = run_derain(tmp_path, "--weights", "official", "--json")
    assert ran.status == 0, ran.err
    assert '"official deraining.pth"' in ran.out
    verified = restormer("weights", "verify")
    assert verified.status == 0
    assert f"known       {home / 'deraining.pth'}" in verified.lines
    assert "official deraining.pth" in restormer("weights", "show", "deraining").out


# --- list and verify ---------------------------------------------------------------------


def test_list_names_every_file_and_where_it_is(home: Path) -> None:
    (home / "Deraining" / "pretrained_models").mkdir(parents=True)
    place = save(tiny_network(), home / "Deraining" / "pretrained_models" / "deraining.pth")
    ran = restormer("weights", "list")
    assert ran.status == 0
    heading, _, *lines = ran.lines
    assert heading.split() == ["NAME", "SIZE", "HASH", "LICENCE"]
    listed: list[list[str]] = []
    for line in lines:
        if line.startswith(" "):
            listed[-1].append(line.strip())
        else:
            listed.append([line])
    assert [entry[0].split()[0] for entry in listed[: len(OFFICIAL)]] == OFFICIAL
    assert listed[0][1:] == ["derain", str(place)]
    for (row, *tasks, where), known in zip(listed, known_files(), strict=True):
        assert row.startswith(known.name)
        assert tuple(tasks) == known.labels
        assert ("not known" in row) == (known.sha256 is None)
        assert where == "not here" or Path(where).name == known.name


def test_list_fits_a_terminal_and_calls_the_home_by_its_short_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("RESTORMER_HOME", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    for name in OFFICIAL:
        (tmp_path / "weights" / name).write_bytes(b"")
    lines = restormer("weights", "list").lines
    assert str(Path("~", "weights", OFFICIAL[0])) in [line.strip() for line in lines]
    embedded = {known.name for known in known_files() if known.kind == "compact"}
    # Where the package is depends on the machine.
    assert [line for line in lines if len(line) > 80 and Path(line).name not in embedded] == []


def test_verify_hashes_what_is_here(home: Path, registry: Any, tmp_path: Path) -> None:
    home.mkdir()
    right = save(tiny_network(), home / "deraining.pth")
    registry("deraining.pth", right)
    unpinned = save(tiny_network(seed=1), home / "motion_deblurring.pth")
    ran = restormer("weights", "verify")
    assert ran.status == 0
    assert f"known       {right}" in ran.lines
    assert f"not pinned  {unpinned}" in ran.lines
    assert sha256(unpinned) in ran.err
    # Downloading what is there already pins it.
    ran = restormer("weights", "download", "motion_deblurring", "--from", tmp_path)
    assert ran.status == 0, ran.err
    assert f"pinned      {unpinned}" in restormer("weights", "verify").lines
    right.write_bytes(unpinned.read_bytes())
    ran = restormer("weights", "verify")
    assert ran.status == 1
    assert f"wrong       {right}" in ran.lines


def test_embedded_files_are_what_their_cards_say() -> None:
    ran = restormer("weights", "verify")
    embedded = [known for known in known_files() if known.kind == "compact"]
    assert embedded
    for known in embedded:
        assert f"known       {known.find()}" in ran.lines


# --- where -------------------------------------------------------------------------------


def test_weights_are_found_in_the_cache_and_in_the_authors_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESTORMER_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache = platformdirs.user_cache_path("restormer-cli", appauthor=False)
    checkout = tmp_path / "checkout"
    monkeypatch.setattr(weights_registry, "shipped_folder", lambda name: checkout / name)
    variant = find_variant("derain")
    layout = Path("Deraining", "pretrained_models", "deraining.pth")
    places = [checkout / layout, checkout / "pretrained_models" / "deraining.pth"]
    if cache.is_relative_to(tmp_path):  # or the platform has an idea of its own
        places += [cache / layout, cache / "deraining.pth"]
    for place in places:  # each goes before those made earlier
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        assert find_weights(variant, "official").path == place


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_official_file_has_its_place_in_the_authors_layout(variant: Any, home: Path) -> None:
    file = shipped_options(variant.name).weights
    folder = {"derain": "Deraining", "denoise": "Denoising", "dual-pixel": "Defocus_Deblurring"}
    folder["deblur"] = "Motion_Deblurring" if variant.kind == "motion" else "Defocus_Deblurring"
    place = home / folder[variant.task] / "pretrained_models" / file["file"]
    place.parent.mkdir(parents=True)
    place.touch()
    assert find_weights(variant, "official").path == place


def test_weights_can_be_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = find_variant("denoise")
    for name in ("compact_denoise_real", "compact_denoise_real.safetensors"):
        assert find_weights(variant, name).kind == "compact"
    with pytest.raises(WeightsError, match="`restormer weights download real_denoising`"):
        find_weights(variant, "real_denoising.pth")
    with pytest.raises(WeightsError, match="no such file"):
        find_weights(variant, "real_denoising.safetensors")
    monkeypatch.chdir(tmp_path)  # a file here is what a person means who types its name
    Path("real_denoising.pth").touch()
    assert find_weights(variant, "real_denoising.pth").kind == "file"


def test_notices_name_the_command_that_gets_the_official_file(tmp_path: Path) -> None:
    ran = run_derain(tmp_path, "--weights", "official")
    assert ran.status == 2
    assert "run `restormer weights download deraining` (105 MB)" in ran.err


def test_official_file_elsewhere_is_not_downloaded_again(
    home: Path, registry: Any, tmp_path: Path
) -> None:
    place = home / "Deraining" / "pretrained_models" / "deraining.pth"
    place.parent.mkdir(parents=True)
    registry("deraining.pth", save(tiny_network(), place))
    ran = restormer("weights", "download", "deraining", "--from", tmp_path / "nowhere")
    assert (ran.status, ran.lines) == (0, [str(place)])


@pytest.mark.parametrize(
    "words",
    [(), ("../deraining",), ("/etc/passwd",), ("deraining.pth/..",), ("compact_denoise_real",)],
)
def test_download_takes_only_names_of_official_files(home: Path, words: tuple[str, ...]) -> None:
    ran = restormer("weights", "download", *words)
    assert ran.status == 2
    assert ran.err.startswith("error: ")
    assert len(ran.lines) == 0
    assert not home.exists()


def test_one_failure_costs_no_other_file(
    home: Path, server: Server, registry: Any, tmp_path: Path
) -> None:
    file = save(tiny_network(), tmp_path / "mine.pth")
    registry("deraining.pth", file)
    server.files["deraining.pth"] = file.read_bytes()
    ran = restormer("weights", "download", "--all", "--from", server.address)
    assert ran.status == 1
    assert ran.lines == [str(home / "deraining.pth")]
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == len(OFFICIAL) - 1
    assert all("404" in line for line in errors)


# --- show --------------------------------------------------------------------------------


def test_show_says_what_a_checkpoint_is(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    state = tiny_network("dual_pixel", num_blocks=(1, 2, 1, 3)).half().state_dict()
    torch.save({"params_ema": state}, path, _use_new_zipfile_serialization=False)
    ran = restormer("weights", "show", path)
    assert ran.status == 0
    facts = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in ran.lines}
    assert facts["SHA-256"] == sha256(path)
    assert facts["known as"] == "no known file"
    assert facts["num_blocks"] == "1 2 1 3"
    assert facts["ffn_expansion_factor"] == "2.66"
    assert facts["dual_pixel_task"] == "yes"
    assert facts["fits"] == "dual-pixel"
    assert facts["names begin with"] == "params_ema."
    assert "not zipped" in facts["file"]
    count = sum(tensor.numel() for tensor in state.values())
    assert facts["tensors"] == f"{len(state)}, {count:,} parameters, float16"


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x03\x04", b"{" * 100])
def test_show_refuses_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    ran = restormer("weights", "show", tmp_path / "net.pth")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {tmp_path / 'net.pth'}: ")
    assert len(ran.err.splitlines()) == 1


# --- convert -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("legacy", [False, True])
def test_conversion_keeps_every_bit(tmp_path: Path, dtype: torch.dtype, legacy: bool) -> None:
    state = tiny_network(seed=5).to(dtype).state_dict()
    state["output.weight"].view(-1)[0] = -0.0
    state["output.weight"].view(-1)[1] = torch.finfo(dtype).smallest_normal / 2
    document = {"state_dict": {f"generator.{name}": tensor for name, tensor in state.items()}}
    torch.save(document, tmp_path / "in.pth", _use_new_zipfile_serialization=not legacy)
    out = tmp_path / "deep" / "out.safetensors"
    ran = restormer("weights", "convert", tmp_path / "in.pth", out)
    assert (ran.status, ran.lines) == (0, [str(out)]), ran.err
    converted, again = load_file(out), open_checkpoint(out).read()
    assert converted.keys() == state.keys() == again.keys()
    for name, tensor in state.items():
        for other in (converted[name], again[name]):
            assert (other.dtype, other.shape) == (dtype, tensor.shape)
            assert torch.equal(
                other.contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8)
            )


def test_conversion_to_half_rounds_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    network = tiny_network()
    source, out = save(network, tmp_path / "in.pth"), tmp_path / "out.safetensors"
    assert restormer("weights", "convert", source, out, "--half").status == 0
    for name, tensor in network.state_dict().items():
        assert torch.equal(load_file(out)[name], tensor.half())
    network.output.weight[0, 0, 0, 0] = 70000
    ran = restormer(
        "weights", "convert", save(network, source), tmp_path / "big.safetensors", "--half"
    )
    assert ran.status == 2
    assert "output.weight" in ran.err
    assert not (tmp_path / "big.safetensors").exists()


def test_conversion_overwrites_nothing_unasked(tmp_path: Path) -> None:
    source, out = save(tiny_network(), tmp_path / "in.pth"), tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    for target in (out, tmp_path / "out.pth"):
        ran = restormer("weights", "convert", source, target)
        assert ran.status == 2
        assert str(target) in ran.err
    assert out.read_bytes() == b"mine"
    assert restormer("weights", "convert", source, out, "--overwrite").status == 0
    assert len(load_file(out)) > 50
    link = tmp_path / "link.safetensors"
    link.symlink_to(tmp_path / "a disk that is away" / "a.safetensors")
    assert restormer("weights", "convert", source, link).status == 2
    assert link.is_symlink()
    assert restormer("weights", "convert", out, out, "--overwrite").status == 2
    ran = restormer("weights", "convert", "missing.pth", out, "--overwrite")
    assert ran.status == 2
    assert ran.err == "error: missing.pth: no such file of weights\n"


def test_paths_that_cannot_be_looked_at_are_one_line() -> None:
    name = "x" * 300 + ".pth"
    for words in (("weights", "show", name), ("weights", "convert", name, "a.safetensors")):
        ran = restormer(*words)
        assert ran.status == 2
        assert ran.err == f"error: {name}: no such file of weights\n"


# --- quickly -----------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--help",), ("list",), ("verify",), ("download", "--help")])
def test_what_needs_no_network_does_not_import_torch(words: tuple[str, ...]) -> None:
    program = "import sys; sys.argv = ['restormer', 'weights', *sys.argv[1:]]\n"
    program += "from restormer_cli.cli.main import main\n"
    program += "try:\n    main()\nfinally:\n    print({'torch', 'requests'} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-1] == "set()"


#: Prints by how many bytes the peak grew while a checkpoint became a network.
PEAK = """
import resource, sys
from pathlib import Path
import restormer_cli.weights.checkpoint
from restormer_cli.network.architecture import Restormer, RestormerConfig
import torch
with torch.device("meta"):
    Restormer(RestormerConfig(dim=8))  # what PyTorch imports for this is not the weights'
def peak():
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
before = peak()
network = restormer_cli.weights.checkpoint.build_network(Path(sys.argv[1]))
print(peak() - before)
"""


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_loading_takes_the_memory_of_one_copy_of_the_weights(tmp_path: Path, form: str) -> None:
    pytest.importorskip("resource")
    state = Restormer(RestormerConfig()).state_dict()
    if form == "safetensors":
        path = save(Restormer(RestormerConfig()), tmp_path / "net.safetensors")
    else:
        path = tmp_path / "net.pth"
        torch.save({"params": state}, path, _use_new_zipfile_serialization=form == "zip")
    size = path.stat().st_size
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
    )
    path.unlink()
    assert int(ran.stdout) < 1.2 * size
