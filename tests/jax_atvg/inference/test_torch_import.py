"""The authors' checkpoints: every file format, and every way to be wrong."""

import gzip

import numpy as np
import pytest

from input_pipeline.clip import InputError
from jax_atvg.inference.torch_import import ENTRIES, convert, read_state_dict
from tests.reference_networks import authors_variables

NETWORKS = {"at_net": "at_net", "vg_net": "vg_net", "discriminator": "gl_discriminator"}


@pytest.fixture(scope="module")
def at_state(shared):
    return read_state_dict(shared("reference", "at_net_seed0_weights.npz"))


@pytest.mark.parametrize(("network", "file"), NETWORKS.items())
def test_every_entry_of_the_authors_networks_is_taken_or_known_to_be_unused(
    shared, network, file
):
    given = set(read_state_dict(shared("reference", f"{file}_seed0_weights.npz")))
    left = given - {entry.source for entry in ENTRIES[network]()}
    assert all(
        name.endswith("num_batches_tracked") or name.startswith("decoder.")
        for name in left
    )
    targets = [entry.target for entry in ENTRIES[network]()]
    assert len(targets) == len(set(targets))


def test_data_parallel_prefix_and_missing_batch_counts_do_not_matter(at_state):
    renamed = {
        f"module.{name}": value
        for name, value in at_state.items()
        if not name.endswith("num_batches_tracked")
    }
    converted, expected = convert("at_net", renamed), authors_variables("at_net")
    np.testing.assert_array_equal(
        converted["params"]["head"]["kernel"], expected["params"]["head"]["kernel"]
    )


def test_legacy_checkpoint_equals_the_npz_of_its_weights(shared, at_state, tmp_path):
    """PyTorch's format before 1.6, `module.` prefix, as the authors' trainers wrote."""
    pytest.importorskip("torch")
    packed = shared("reference", "at_net_seed0_dataparallel_legacy.pth.gz")
    path = tmp_path / "atnet.pth"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    read = read_state_dict(path)
    assert set(read) == {f"module.{name}" for name in at_state}
    for name, value in at_state.items():
        np.testing.assert_array_equal(read[f"module.{name}"], value)
    convert("at_net", read)


@pytest.mark.parametrize("form", ["zip", "legacy", "legacy_py2_cuda"])
def test_every_file_format_of_pytorch_is_read(shared, form):
    """The last is what Python 2 wrote on a GPU: keys of bytes, tensors on cuda:0."""
    pytest.importorskip("torch")
    read = read_state_dict(shared("reference", f"vg_net_seed0_subset_{form}.pth"))
    whole = read_state_dict(shared("reference", "vg_net_seed0_weights.npz"))
    assert len(read) == 10
    for name, value in read.items():
        np.testing.assert_array_equal(value, whole[name.removeprefix("module.")])


def test_missing_unexpected_and_misshapen_entries_are_all_named(at_state):
    wrong = dict(at_state)
    del wrong["lstm.bias_hh_l2"]
    wrong["extra.weight"] = np.zeros(3)
    wrong["lstm_fc.0.weight"] = np.zeros((7, 256))
    wrong["audio_eocder.0.0.weight"] = np.zeros((64, 9))
    with pytest.raises(InputError) as error:
        convert("at_net", wrong)
    for expected in (
        "not a state dict of at_net, 4 entries differ",
        "missing lstm.bias_hh_l2",
        "unexpected extra.weight",
        "misshapen lstm_fc.0.weight (7, 256)",
        "misshapen audio_eocder.0.0.weight (64, 9)",
        "must be (3, 3, 1, 64)",
    ):
        assert expected in str(error.value)


def test_a_subset_is_no_network(shared):
    pytest.importorskip("torch")
    subset = read_state_dict(shared("reference", "vg_net_seed0_subset_zip.pth"))
    with pytest.raises(InputError, match=r"missing image_encoder1\.1\.1\.weight"):
        convert("vg_net", subset)


def test_unknown_network_is_an_error():
    with pytest.raises(InputError, match=r"'unet' must be one of \['at_net'"):
        convert("unet", {})


def test_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"nothing.pth: no such file; give a \.pth"):
        read_state_dict(tmp_path / "nothing.pth")


@pytest.mark.parametrize("name", ["broken.pth", "broken.npz"])
def test_unreadable_checkpoint_is_an_error(tmp_path, name):
    if name.endswith("pth"):
        pytest.importorskip("torch")
    (tmp_path / name).write_bytes(b"not a checkpoint at all")
    with pytest.raises(InputError, match=f"{name}: not a "):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("share", [0, 0.5])
def test_an_npz_that_is_cut_off_is_an_error(tmp_path, share):
    """As a download leaves it that was broken off."""
    path = tmp_path / "atnet.npz"
    np.savez(path, weight=np.arange(1000))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"not a readable .npz file .* copy it again"):
        read_state_dict(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    """A pickle may call anything; only tensors are let through."""
    torch = pytest.importorskip("torch")

    class Attack:
        def __reduce__(self):
            return (tmp_path.joinpath("owned").touch, ())

    torch.save({"weight": Attack()}, tmp_path / "attack.pth")
    with pytest.raises(InputError, match=r"attack.pth: not a PyTorch checkpoint"):
        read_state_dict(tmp_path / "attack.pth")
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_of_something_else_is_an_error(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, tmp_path / "nested.pth")
    with pytest.raises(
        InputError, match=r"holds no state dict .* module.state_dict\(\)"
    ):
        read_state_dict(tmp_path / "nested.pth")


def test_without_torch_the_remedy_is_named(tmp_path, monkeypatch):
    (tmp_path / "atnet.pth").write_bytes(b"any")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install -r requirements/torch.txt"):
        read_state_dict(tmp_path / "atnet.pth")
