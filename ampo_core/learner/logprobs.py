"""Log-probs and entropies of chosen tokens from hidden states, without ever holding [tokens, vocabulary].

The LM head is applied to one slice of the vocabulary at a time, once in forward and again in backward. Temperature
divides the logits, so the numbers are those of the distribution that was sampled from (golden: entropy.json).

With logits z, log Z = logsumexp(z), p = softmax(z), H = log Z - Σ p z:  ∂ log p_t / ∂z = onehot(t) - p  and
∂H / ∂z = -p (log p + H).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

SLICE_ELEMENTS = {"cpu": 2**22, "cuda": 2**27}
"""Logits held at once: what a CPU's cache takes; on a GPU 512 MiB in fp32, so that its matrix products stay large."""

FEWEST_COLUMNS = 1024


class LogprobHead(nn.Module):
    """The LM head of a model, as one call that answers with log-probs instead of logits.

    It owns the model's parameters themselves, not copies. However many slices it takes it is one module call with its
    own parameters, which is what ZeRO 3 gathers around a forward and a backward.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.weight: nn.Parameter = head.weight  # type: ignore[assignment]
        self.bias: nn.Parameter | None = getattr(head, "bias", None)

    def forward(
        self, hidden: torch.Tensor, targets: torch.Tensor, temperature: float, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-prob of each target token and, if asked for, the entropy of its distribution, in nats.

        `hidden` [tokens, width] predicts `targets` [tokens]. Returns two [tokens] tensors, float32 or better; the
        second is empty without `entropy`. Both have gradients to `hidden`, weight and bias.
        """
        return token_logprobs(hidden, targets, self.weight, self.bias, temperature=temperature, entropy=entropy)


def token_logprobs(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    temperature: float,
    entropy: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`LogprobHead.forward` with the head's `weight` [vocabulary, width] and `bias` [vocabulary] as arguments."""
    result: tuple[torch.Tensor, torch.Tensor] = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, targets, weight, bias, temperature, entropy
    )
    return result


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        temperature: float,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        slices = _Slices(hidden, weight, bias, temperature)
        picked = torch.zeros(len(targets), dtype=slices.dtype, device=hidden.device)
        maxima, sums, weighted = [], [], []
        for start, end in slices.ranges():
            scaled, spare = slices.scaled_logits(start, end)
            column, here = _column(targets, start, end)
            picked = torch.where(here, scaled.gather(1, column).squeeze(1), picked)
            maxima.append(scaled.amax(dim=1))
            scaled.sub_(maxima[-1].unsqueeze(1))
            exponentials = torch.exp(scaled, out=spare)
            sums.append(exponentials.sum(dim=1))
            if entropy:
                weighted.append(exponentials.mul_(scaled).sum(dim=1))
        maximum = torch.stack(maxima).amax(dim=0)
        shifts = torch.stack(maxima) - maximum
        total = (torch.stack(sums) * shifts.exp()).sum(dim=0)
        normaliser = maximum + total.log()
        entropies = picked.new_empty(0)
        if entropy:
            mean = (shifts.exp() * (torch.stack(weighted) + shifts * torch.stack(sums))).sum(dim=0) / total
            entropies = total.log() - mean
        ctx.save_for_backward(hidden, targets, weight, bias, normaliser, entropies)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return picked - normaliser, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        hidden, targets, weight, bias, normaliser, entropies = ctx.saved_tensors
        of_logprobs, of_entropies = (None if g is None or not g.numel() else g / ctx.temperature for g in gradients)
        wants_hidden, _, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        slices = _Slices(hidden, weight, bias, ctx.temperature)
        for_hidden = torch.zeros_like(hidden, dtype=slices.dtype) if wants_hidden else None
        for_weight = torch.empty_like(weight) if wants_weight else None
        for_bias = torch.empty_like(bias) if wants_bias else None
        for start, end in slices.ranges():
            scaled, spare = slices.scaled_logits(start, end)
            exact = _logit_gradients(scaled, spare, normaliser, entropies, of_logprobs, of_entropies)
            if of_logprobs is not None:
                column, here = _column(targets, start, end)
                exact.scatter_add_(1, column, (of_logprobs * here).unsqueeze(1))
            if for_bias is not None:
                for_bias[start:end] = exact.sum(dim=0)
            part = slices.rounded(exact)
            if for_weight is not None:
                torch.mm(part.t(), hidden, out=for_weight[start:end])
            if for_hidden is not None:
                _add_product(for_hidden, part, weight[start:end])
        return None if for_hidden is None else for_hidden.to(hidden.dtype), None, for_weight, for_bias, None, None


class _Slices:
    """Slices of the vocabulary, [tokens, columns] each, in memory that every slice uses again.

    A new block for each slice was tried: what the allocator keeps of them doubled the peak on a CPU.
    """

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, temperature: float
    ) -> None:
        self.dtype = torch.promote_types(hidden.dtype, torch.float32)
        self._hidden, self._weight, self._bias, self._temperature = hidden, weight, bias, temperature
        elements = SLICE_ELEMENTS["cuda" if hidden.is_cuda else "cpu"]
        self._columns = min(len(weight), max(FEWEST_COLUMNS, elements // max(1, len(hidden))))
        size = len(hidden) * self._columns
        self._precise = hidden.new_empty((2, size), dtype=self.dtype)
        self._own = self._precise[0] if hidden.dtype == self.dtype else hidden.new_empty(size)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Start and end of each slice."""
        for start in range(0, len(self._weight), self._columns):
            yield start, min(start + self._columns, len(self._weight))

    def scaled_logits(self, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits over temperature of the vocabulary's `start`:`end`, and memory of the same shape; both float32 or
        better, computed in the dtype of the hidden states."""
        shape = (len(self._hidden), end - start)
        scaled, spare, own = (flat[: shape[0] * shape[1]].view(shape) for flat in (*self._precise, self._own))
        torch.mm(self._hidden, self._weight[start:end].t(), out=own)
        if self._bias is not None:
            own.add_(self._bias[start:end])
        if own.dtype != scaled.dtype:
            scaled.copy_(own)
        if self._temperature != 1.0:
            scaled.div_(self._temperature)
        return scaled, spare

    def rounded(self, exact: torch.Tensor) -> torch.Tensor:
        """`exact` [tokens, columns] in the dtype of the hidden states."""
        if exact.dtype == self._own.dtype:
            return exact
        return self._own[: exact.numel()].view(exact.shape).copy_(exact)


def _logit_gradients(
    scaled: torch.Tensor,
    spare: torch.Tensor,
    normaliser: torch.Tensor,
    entropies: torch.Tensor,
    of_logprobs: torch.Tensor | None,
    of_entropies: torch.Tensor | None,
) -> torch.Tensor:
    """The gradient at a slice of the logits [tokens, columns], but for the targets' own; overwrites both slices."""
    logs = scaled.sub_(normaliser.unsqueeze(1))
    factor = torch.zeros_like(normaliser) if of_logprobs is None else -of_logprobs
    if of_entropies is None:
        return logs.exp_().mul_(factor.unsqueeze(1))
    probabilities = torch.exp(logs, out=spare)
    logs.mul_(-of_entropies.unsqueeze(1)).add_((factor - of_entropies * entropies).unsqueeze(1))
    return logs.mul_(probabilities)


def _column(targets: torch.Tensor, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each target's column in the slice `start`:`end`, [tokens, 1], and whether it is there, [tokens]."""
    inside = (targets >= start) & (targets < end)
    return (targets - start).clamp(0, end - start - 1).unsqueeze(1), inside


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """`total` += `left` @ `right`, with `total` in float32 or better."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
