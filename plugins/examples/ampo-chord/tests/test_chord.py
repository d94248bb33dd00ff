import torch
from ampo_chord import Chord
from ampo_registry import LossView
from ampo_registry.testing import check_loss


def test_chord_keeps_the_contract_of_a_loss() -> None:
    check_loss(Chord())


def test_a_token_costs_its_surprise_times_phi_which_has_no_gradient() -> None:
    p = torch.tensor([1e-30, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    log_probs = p.log().requires_grad_()
    losses = Chord().token_losses(LossView(log_probs, torch.zeros_like(p), torch.tensor([5])))
    torch.testing.assert_close(losses, -p * (1 - p) * p.log())
    torch.autograd.backward(losses.sum())
    torch.testing.assert_close(log_probs.grad, -p * (1 - p))
