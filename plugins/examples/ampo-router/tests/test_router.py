from ampo_registry.testing import check_intervention, example_interventions, example_step
from ampo_router import Router


def test_router_keeps_the_contract_of_an_intervention() -> None:
    check_intervention(Router(), keeps_right=False)
    check_intervention(Router(term="imitation"), keeps_right=False)


def test_a_failed_group_becomes_its_answers_and_one_without_an_answer_stays() -> None:
    failed, *_ = requests = example_interventions()
    (alone,) = [request for request in requests if not request.selections]
    found = Router().intervene([failed, alone], example_step()).guided
    assert found[0].groups == ()
    assert [sample.segments for sample in found[0].extra] == [
        (("sft", len(chosen.guidance.token_ids)),) for chosen in failed.selections
    ]
    assert found[1].groups == (alone.samples,)
    assert not found[1].extra
