from ampo_nearest_length import NearestLength
from ampo_registry.testing import check_selector


def test_nearest_length_keeps_the_contract_of_a_selector() -> None:
    check_selector(NearestLength())
