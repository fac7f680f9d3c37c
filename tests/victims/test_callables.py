"""A Python function as a victim: it answers in the order of the batch, and never gives a silent zero gradient."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tests.support.speech import clip
from tests.support.waveforms import LENGTHS, padded

from staanet.attacks import ATTACKS, craft
from staanet.attacks.loss import AttackTask
from staanet.core import Budget, Clip, Untargeted, Victim
from staanet.errors import InvalidInput, StaaNetError
from staanet.evaluation import transfer_matrix
from staanet.victims import CallableVictim

LABELS = ("anger", "joy", "fear")


def crossings(x):
    """Two classes by the share of sign changes."""
    share = (np.diff(np.sign(x), axis=1) != 0).mean(axis=1)
    return np.stack([share - 0.1, 0.1 - share], axis=1)


def test_a_callable_never_sees_padding_and_answers_in_the_batchs_order():
    seen = []

    def mean_and_length(x):
        seen.append(x.shape)
        return np.stack([x.mean(axis=1), np.full(len(x), x.shape[1])], axis=1)

    x = padded()
    logits = CallableVictim(mean_and_length, ["a", "b"], 16_000)(x, LENGTHS)
    assert sorted(seen) == [(1, 6001), (2, 4000)]
    assert logits[:, 1].tolist() == LENGTHS.tolist()
    assert logits[0, 0] == pytest.approx(float(x[0, :4000].mean()), abs=1e-6)


def test_probabilities_become_logits_whose_softmax_they_are():
    victim = CallableVictim(
        lambda x: np.tile([0.7, 0.2, 0.1], (len(x), 1)), LABELS, 16_000, probabilities=True
    )
    assert torch.allclose(torch.softmax(victim(padded()), 1)[0], torch.tensor([0.7, 0.2, 0.1]))
    certain = CallableVictim(
        lambda x: [[1.0, 0.0]] * len(x), ["a", "b"], 16_000, probabilities=True
    )
    assert torch.isfinite(certain(padded())).all()


@pytest.mark.parametrize(
    ("answer", "probabilities", "word"),
    [
        (lambda x: np.zeros((len(x), 2)), False, "[3, 3]"),
        (lambda x: np.zeros(3), False, "[3, 3]"),
        (lambda x: np.full((len(x), 3), np.nan), False, "non-finite"),
        (lambda x: np.full((len(x), 3), 2.0), True, "sums to 6"),
        (lambda x: np.tile([1.5, -0.5, 0.0], (len(x), 1)), True, "-0.5"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused(answer, probabilities, word):
    victim = CallableVictim(answer, LABELS, 16_000, probabilities=probabilities)
    with pytest.raises(InvalidInput) as error:
        victim(padded())
    assert word in str(error.value)


def test_a_black_box_raises_where_a_gradient_is_asked_for_and_only_there():
    victim = CallableVictim(crossings, ["hiss", "hum"], 16_000)
    x = padded().requires_grad_()
    assert not victim.differentiable and Victim.differentiable
    with torch.no_grad():
        assert victim(x).shape == (3, 2)
    with pytest.raises(StaaNetError) as error:
        victim(x)
    assert "black box" in str(error.value) and "random" in str(error.value)
    with pytest.raises(StaaNetError):
        craft(ATTACKS["pgd"](budget=Budget(epsilon=0.01)), victim, [clip()])
    with pytest.raises(StaaNetError):
        AttackTask(victim, padded(), Untargeted(0), None).gradient(padded())


def test_a_callable_is_attacked_at_random_and_judged_like_any_victim(linear):
    victim = CallableVictim(crossings, ["hiss", "hum"], 16_000, name="zero crossings")
    clips = [clip(0.1, 200.0 + 50 * n, seed=n, label="hum", speaker=f"s{n % 3}") for n in range(4)]
    made = craft(ATTACKS["random"](budget=Budget(epsilon=0.03, max_density=0.2)), victim, clips)
    matrix = transfer_matrix([made], [victim, linear])
    cell = matrix.cell("random", "zero crossings", "zero crossings")
    assert cell["count"] == 4 and 0 <= cell["fooling_rate"]["value"] <= 1
    answers = [matrix.rows[0]["clean_prediction"], matrix.rows[0]["adversarial_prediction"]]
    assert {*answers} <= {"hiss", "hum"}


def test_a_clip_below_its_minimum_and_saving_it_are_refused(tmp_path):
    victim = CallableVictim(crossings, ["hiss", "hum"], 16_000, minimum_samples=500)
    with pytest.raises(InvalidInput) as error:
        victim(torch.zeros(1, 499))
    assert "499" in str(error.value) and "500" in str(error.value)
    with pytest.raises(InvalidInput):
        victim.save_pretrained(tmp_path / "v")
    assert not (tmp_path / "v").exists()


def test_a_function_that_changes_its_input_changes_a_copy():
    def centred(x):
        x -= x.mean(axis=1, keepdims=True)
        return np.stack([x.max(axis=1), -x.min(axis=1)], axis=1)

    victim = CallableVictim(centred, ["up", "down"], 16_000)
    x = padded()
    before = x.clone()
    victim(x, LENGTHS)
    victim(x[:1])
    assert torch.equal(x, before)
    result = craft(ATTACKS["one_pixel"](budget=Budget(epsilon=0.03)), victim, [clip(0.1)])
    assert len(next(iter(result)).support) <= 1


def test_an_exception_names_function_and_clip_and_the_other_clips_go_on():
    def picky(x):
        if abs(x).max() > 0.5:
            raise ZeroDivisionError("too\nloud")
        return crossings(x)

    victim = CallableVictim(picky, ["hiss", "hum"], 16_000, name="picky")
    loud = Clip("loud", np.full(1600, 30_000, np.int16), 16_000)
    clips = [clip(0.1, 200.0 + 50 * n, seed=n) for n in range(3)]
    attack = ATTACKS["one_pixel"](budget=Budget(epsilon=0.03))
    result = craft(attack, victim, [clips[0], loud, *clips[1:]], batch_size=2)
    assert [pair.clean.id for pair in result] == [one.id for one in clips]
    (row,) = result.card["quarantined"]
    place = r" \(test_callables.py:\d+, in picky\)"
    assert re.fullmatch("picky raised ZeroDivisionError: too loud" + place, row["reason"])
    with pytest.raises(InvalidInput, match="no clip could be attacked") as error:
        craft(attack, victim, [loud])
    assert "loud: " in str(error.value)
