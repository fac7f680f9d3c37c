"""An LSTM layer with a learned backward pass."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.nn.precision import in_float32


class LSTMWithBackward(nn.Module):
    """An LSTM layer ``[B, S, I] -> [B, S, H]``, and a backward pass with weights of its own.

    The backward pass has the form of backpropagation through time (Hochreiter and Schmidhuber, 1997)
    and uses the gates of the forward pass. It equals the gradient where ``to_input`` and ``to_state``
    are the transposed weights of ``lstm``; training may move them away from that.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.to_input = nn.Linear(4 * hidden, inputs, bias=False)
        self.to_state = nn.Linear(4 * hidden, hidden, bias=False)

    @in_float32
    def forward(self, x: Tensor) -> Tensor:
        """The output of each step, ``[B, S, I] -> [B, S, H]``."""
        outputs: Tensor = self.lstm(x)[0]
        return outputs

    @in_float32
    def backward(self, grad_output: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Returns the gradient with respect to ``inputs``, ``[B, S, I]``.

        Args:
            grad_output: Gradient with respect to ``outputs``, ``[B, S, H]``.
            inputs: The argument of the forward pass, ``[B, S, I]``.
            outputs: The result of the forward pass, ``[B, S, H]``.
        """
        slopes = self._slopes(inputs, outputs)
        return cast(Tensor, self.to_input(self._gate_gradients(grad_output, *slopes)))

    def _gate_gradients(
        self, grad_output: Tensor, forget: Tensor, cell_slope: Tensor, gate_slopes: Tensor
    ) -> Tensor:
        """Gradients with respect to the four gates of each step, ``[B, S, 4 H]``, from the last step on."""
        reversed_steps = [
            x.unbind(dim=1)[::-1] for x in (grad_output, forget, cell_slope, gate_slopes)
        ]
        to_state = self.to_state.weight.t().contiguous()  # one row times this: half the time
        gates = []
        state = carry = grad_output.new_zeros(grad_output.shape[0], grad_output.shape[2])
        for grad, forget_now, cell_now, gates_now in zip(*reversed_steps, strict=True):
            state = grad + state
            cell = torch.addcmul(carry, state, cell_now)
            gates.append(torch.cat([cell, cell, cell, state], dim=1) * gates_now)
            carry = cell * forget_now
            state = gates[-1] @ to_state
        return torch.stack(gates[::-1], dim=1)

    def _slopes(self, inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each step: the forget gate and the slope of its output by its cell, ``[B, S, H]``, and
        the slopes by its four gates, ``[B, S, 4 H]``."""
        lstm = self.lstm
        before = F.pad(outputs, (0, 0, 1, 0))[:, :-1]
        weights = lstm.weight_ih_l0, lstm.bias_ih_l0, lstm.weight_hh_l0, lstm.bias_hh_l0
        to_gates, gate_bias, from_state, state_bias = cast(tuple[Tensor, ...], weights)
        gates = F.linear(inputs, to_gates, gate_bias) + F.linear(before, from_state, state_bias)
        i, f, g, o = gates.chunk(4, dim=2)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        cells = self._cells(i * g, f)
        previous = F.pad(cells, (0, 0, 1, 0))[:, :-1]
        squashed = cells.tanh()
        gate_slopes = torch.cat(
            [g * i * (1 - i), previous * f * (1 - f), i * (1 - g * g), squashed * o * (1 - o)],
            dim=2,
        )
        return f, o * (1 - squashed * squashed), gate_slopes

    def _cells(self, additions: Tensor, forget: Tensor) -> Tensor:
        """The cell of each step, ``c_t = additions_t + forget_t c_(t-1)``, ``[B, S, H]``."""
        cells, cell = [], torch.zeros_like(additions[:, 0])
        for added, forget_now in zip(additions.unbind(dim=1), forget.unbind(dim=1), strict=True):
            cell = torch.addcmul(added, forget_now, cell)
            cells.append(cell)
        return torch.stack(cells, dim=1)
