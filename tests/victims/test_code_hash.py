"""The hash of a Python victim follows its code and what the code uses."""

from __future__ import annotations

import functools
import socket

import numpy as np
import pytest
import torch

from staanet.defences import Defended
from staanet.transforms import parse_transform
from staanet.victims import CallableVictim
from staanet.victims.code_hash import callable_sha256

SCALE = 2.0


def scaled(x):
    return helper(x) * SCALE


def helper(x):
    return x


def closure_over(value):
    return lambda x: x * value


class Model:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return x @ self.weight


@pytest.mark.parametrize(
    "first, second",
    [
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x: np.sin(x), lambda x: np.cos(x)),
        (closure_over(1.0), closure_over(2.0)),
        (closure_over(np.ones(3)), closure_over(np.zeros(3))),
        (closure_over(np.ones(3)), closure_over(np.ones(3, np.float32))),
        (Model(np.ones(2)), Model(np.zeros(2))),
        (functools.partial(helper, 1), functools.partial(helper, 2)),
        (lambda x, k=1: x, lambda x, k=2: x),
        (lambda x: [y for y in x if y > 1], lambda x: [y for y in x if y > 2]),
    ],
)
def test_functions_that_differ_have_another_hash(first, second):
    hashes = [callable_sha256(fn) for fn in (first, second)]
    assert None not in hashes and hashes[0] != hashes[1]


def test_the_same_function_built_twice_has_the_same_hash():
    for build in (lambda: closure_over(np.ones(3)), lambda: Model({"a": [1, (2, np.ones(2))]})):
        assert callable_sha256(build()) == callable_sha256(build()) is not None


def test_weights_of_a_network_that_a_function_closes_over_count():
    def build(seed):
        torch.manual_seed(seed)
        network = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())
        return lambda x: network(torch.from_numpy(x)).detach().numpy()

    assert callable_sha256(build(0)) == callable_sha256(build(0)) != callable_sha256(build(1))


def test_a_global_that_the_code_uses_counts(monkeypatch):
    before = callable_sha256(scaled)
    monkeypatch.setitem(scaled.__globals__, "SCALE", 3.0)
    assert callable_sha256(scaled) not in (before, None)
    monkeypatch.undo()
    monkeypatch.setitem(scaled.__globals__, "helper", lambda x: x + 1)
    assert callable_sha256(scaled) not in (before, None)


def test_what_cannot_be_hashed_is_said_and_resumes_nothing():
    with socket.socket() as connection:
        client = CallableVictim(lambda x: connection.send(x), ["a", "b"], 16_000)
        other = CallableVictim(lambda x: connection.send(x), ["a", "b"], 16_000)
        assert (
            client.sha256 is None and Defended(client, [parse_transform("median:3")]).sha256 is None
        )
        assert client.identity == client.identity != other.identity
        assert "not resumable" in client.identity


def test_two_functions_behind_one_defence_differ():
    victims = [
        Defended(CallableVictim(closure_over(k), ["a", "b"], 16_000), [parse_transform("median:3")])
        for k in (1.0, 2.0)
    ]
    assert victims[0].sha256 != victims[1].sha256 and victims[0].identity == victims[0].sha256


def test_a_recursive_function_has_a_hash():
    def count(x):
        return count(x[1:]) if len(x) else x

    assert callable_sha256(count)
