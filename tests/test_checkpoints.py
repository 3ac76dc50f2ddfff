import json

import pytest
import torch

from vaelib.checkpoints import (
    CHECKPOINT,
    STABLE,
    check_faces,
    optimizer_state,
    part_of,
    read_checkpoint,
    set_optimizer_state,
    what_tells,
    write_checkpoint,
)

STATE = {"model.weight": torch.arange(6.0).view(2, 3), "model.count": torch.tensor(7)}
FACTS = {"history": [{"epoch": 1, "loss": 2.5}], "config": {"epochs": 3}, "faces": None}


def test_what_is_written_is_read(tmp_path):
    write_checkpoint(tmp_path, STATE, FACTS, stable=False)
    state, facts = read_checkpoint(tmp_path / CHECKPOINT, torch.device("cpu"))
    assert facts == FACTS and state.keys() == STATE.keys()
    assert all(torch.equal(value, state[name]) for name, value in STATE.items())
    assert json.loads((tmp_path / "history.json").read_text()) == FACTS["history"]
    assert not (tmp_path / STABLE).exists()


def test_a_stable_state_is_kept_beside_later_ones(tmp_path):
    write_checkpoint(tmp_path, STATE, FACTS, stable=True)
    write_checkpoint(tmp_path, {"model.weight": torch.zeros(1)}, FACTS, stable=False)
    assert read_checkpoint(tmp_path / STABLE, torch.device("cpu"))[0].keys() == STATE.keys()


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\xff" * 100])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(ValueError, match="it is damaged or no checkpoint of vaelib"):
        read_checkpoint(tmp_path / CHECKPOINT, torch.device("cpu"))


def test_faces_are_told_apart_by_each_pixel_and_their_order(tmp_path, faces):
    train, test = faces.split()
    told = what_tells(train, test)
    assert told == what_tells(train.select(range(len(train))), test)
    for rows in (range(1, len(train)), range(len(train) - 1, -1, -1)):
        other = train.select(rows)
        with pytest.raises(ValueError, match="and these are other ones"):
            check_faces(tmp_path, told, what_tells(other, test), other, test)


def test_other_test_faces_are_fine_unless_they_were_trained_on(tmp_path, faces):
    train, test = faces.split()
    told = what_tells(train, test)
    check_faces(tmp_path, told, what_tells(train, test.select([0])), train, test.select([0]))
    with pytest.raises(ValueError, match="2 of the 2 test faces are among those"):
        check_faces(tmp_path, told, what_tells(train, train.select([0, 1])), train, train.select([0, 1]))


def test_an_optimiser_goes_on_as_if_nothing_had_been():
    def optimiser(weight):
        return torch.optim.Adam([weight], 0.1)

    one, other = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    first, second = optimiser(one), optimiser(other)
    for _ in range(2):
        one.grad = torch.tensor([1.0, -2.0, 3.0])
        first.step()
    other.data.copy_(one.data)
    kept = {name: value.clone() for name, value in optimizer_state(first, "optimizer.").items()}
    set_optimizer_state(second, part_of(kept, "optimizer."))
    for weight, optimizer in ((one, first), (other, second)):
        weight.grad = torch.tensor([0.5, 0.5, 0.5])
        optimizer.step()
    assert torch.equal(one, other)
