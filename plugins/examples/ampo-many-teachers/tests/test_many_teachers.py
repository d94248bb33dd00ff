from dataclasses import replace

import pytest
import torch
from ampo_many_teachers import ManyTeachers
from ampo_registry import CreditGroup, StepContext
from ampo_registry.testing import FakeJudge, FakeServices, check_credit, example_credit_groups, example_step


def step(**log_probs: float | None) -> tuple[StepContext, FakeServices]:
    """A step with judges that find each token so likely; the student's own log-probs are -0.5."""
    services = FakeServices()
    services.judges.update({name: FakeJudge(name, fixed) for name, fixed in log_probs.items()})
    return example_step(services=services), services


def numbers(credits: list[float | torch.Tensor]) -> list[list[float]]:
    return [[float(item) for item in torch.as_tensor(credit, dtype=torch.float64).reshape(-1)] for credit in credits]


def of_group(group: CreditGroup, spec: ManyTeachers, context: StepContext) -> list[list[float]]:
    [found] = spec.credit([group], context)
    return numbers(found)


def test_many_teachers_keeps_the_contract_of_a_credit() -> None:
    check_credit(ManyTeachers(teachers=["one"]))
    check_credit(ManyTeachers(teachers=["one", "two", "three"], temperature=1.0))


def test_judges_are_weighed_by_how_well_the_student_follows_them() -> None:
    group = example_credit_groups()[0]
    context, services = step(near=-0.75, far=-1.5)
    found = of_group(group, ManyTeachers(teachers=["near", "far"], temperature=0.5), context)
    # KL is 0.25 and 1.0, so that weights are as 1 to exp(-1.5)
    near = 1 / (1 + torch.tensor(-1.5, dtype=torch.float64).exp().item())
    expected = -0.25 * near - 1.0 * (1 - near)
    for values, sample in zip(found, group.samples, strict=True):
        assert values == pytest.approx([expected] * len(sample.token_ids), rel=1e-12)
    assert services.logged["many_teachers/weight/near"] == pytest.approx([near], rel=1e-12)


def test_a_low_temperature_leaves_the_nearest_judge_alone_and_equal_log_probs_give_exactly_0() -> None:
    group = example_credit_groups()[0]
    context, _ = step(same=-0.5, far=-1.5)
    found = of_group(group, ManyTeachers(teachers=["far", "same"], temperature=1e-6), context)
    assert found == [[0.0] * len(sample.token_ids) for sample in group.samples]


def test_each_group_has_weights_of_its_own() -> None:
    """As one asks about each group alone."""
    groups, spec = example_credit_groups(), ManyTeachers(teachers=["one", "two"], temperature=0.3)
    together = spec.credit(groups, step()[0])
    for group, found in zip(groups, together, strict=True):
        assert numbers(found) == of_group(group, spec, step()[0])


def test_only_the_students_own_tokens_are_taught_and_weighed() -> None:
    _, mixed, unknown = example_credit_groups()
    context, services = step(one=-1.0)
    found = of_group(mixed, ManyTeachers(teachers=["one"]), context)
    assert found[2] == [0.0] * 4 + [-0.5] * 5  # a teacher's tokens, one of context, and the student's
    assert found[3] == [0.0]
    assert len(services.judges["one"].asked[0]) == 3
    assert of_group(unknown, ManyTeachers(teachers=["one"]), context)[0] == [0.0]
    assert len(services.judges["one"].asked[1]) == 2
    late = replace(unknown, samples=unknown.samples[:1])
    services.logged.clear()
    assert of_group(late, ManyTeachers(teachers=["one"]), context) == [[0.0]]
    assert not services.logged
