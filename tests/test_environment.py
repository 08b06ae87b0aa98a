"""What a training says of where it ran."""

import torch

from nas.training.environment import differences, environment, source_digest, versions


def test_environment_names_what_numbers_depend_on() -> None:
    told = environment(torch.device("cpu"), torch.bfloat16, "torch's own")
    assert set(told) == {"nas", "source", "torch", "python", "processor", "device", "precision", "kernels"}
    assert (told["torch"], told["device"], told["precision"]) == (torch.__version__, "cpu", "bfloat16")
    assert told["kernels"] == "torch's own"
    assert told["source"] == source_digest()
    assert len(source_digest()) == 12
    assert told["processor"].endswith(f"({torch.backends.cpu.get_cpu_capability()})")


def test_versions_are_one_line() -> None:
    assert versions({"torch": "2", "nas": "1", "python": "3", "device": "cpu"}) == "nas 1, torch 2, Python 3"
    assert versions({}) == ""


def test_differences_name_what_is_not_as_it_was() -> None:
    before = {"torch": "2.14.0", "device": "cpu", "nas": "1"}
    now = {"torch": "2.15.0", "device": "cpu", "precision": "float32"}
    assert list(differences(before, now)) == [
        "torch was 2.14.0 and is 2.15.0",
        "nas was 1 and is not told",
        "precision was not told and is float32",
    ]
