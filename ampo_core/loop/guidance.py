"""Guidance (Eq. 3 and 4): which groups need it, which answers they get, and the wrong rollouts that these replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ampo_registry.errors import PluginError
from ampo_registry.protocols import BuildContext, SelectionContext, Selector, Trigger, TriggerContext
from ampo_registry.types import Guidance, RolloutGroup, Selection, SelectionRequest

from ampo_core.config.tree import GuidanceConfig
from ampo_core.data.seeds import derive_seed, request_rng
from ampo_core.loop.groups import AugmentedGroup, Slot, unguided
from ampo_core.loop.scoring import PolicyScorer
from ampo_core.loop.teachers import TeacherLibrary


@dataclass(frozen=True, slots=True)
class Guide:
    """What rescues a failed group: the parts of the block `guidance`, and the run's seed."""

    config: GuidanceConfig
    trigger: Trigger
    library: TeacherLibrary
    selector: Selector
    scorer: PolicyScorer
    seed: int

    @classmethod
    def build(
        cls, config: GuidanceConfig, library: TeacherLibrary, scorer: PolicyScorer, context: BuildContext
    ) -> Guide:
        """The parts, built in `context`."""
        trigger, selector = config.trigger.build(context), config.selector.build(context)
        return cls(config, trigger, library, selector, scorer, context.seed)

    def triggered(self, groups: Sequence[RolloutGroup], step: int) -> list[int]:
        """Indices of the groups that need guidance; a group without a wrong slot has nothing to replace."""
        context = TriggerContext(step)
        return [i for i, group in enumerate(groups) if group.wrong and self.trigger.fires(group, context)]

    def select(
        self,
        groups: Sequence[RolloutGroup],
        candidates: Sequence[tuple[Guidance, ...]],
        positions: Sequence[int],
        step: int,
    ) -> list[list[Selection]]:
        """Selections for each triggered group, in one call of the selector; k = min(k0, N_g, wrong slots).

        `positions` are the groups' places in the batch.
        """
        requests = [
            SelectionRequest(
                question=group.question,
                rollouts=group.rollouts,
                candidates=usable,
                k=min(self.config.replacements, len(usable), len(group.wrong)),
                rng=request_rng(self.seed, step, position),
            )
            for group, usable, position in zip(groups, candidates, positions, strict=True)
        ]
        asked = [request for request in requests if request.k > 0]
        chosen = self.selector.select(asked, SelectionContext(self.scorer, step))
        name = type(self.selector).__name__
        if len(chosen) != len(asked):
            raise PluginError(f"{name}.select answered {len(chosen)} of {len(asked)} requests")
        answers = iter(_checked(request, selected, name) for request, selected in zip(asked, chosen, strict=True))
        return [next(answers) if request.k > 0 else [] for request in requests]

    def replace_wrong(
        self, group: RolloutGroup, selections: Sequence[Selection], position: int, step: int
    ) -> AugmentedGroup:
        """A triggered group with one wrong slot, drawn at random, replaced for each selection; its size stays G
        (Eq. 4)."""
        rng = Random(derive_seed("replacement", self.seed, step, position))
        given = self.config.teacher_reward
        slots = list(unguided(group).slots)
        for index, selection in zip(rng.sample(group.wrong, len(selections)), selections, strict=True):
            guidance = selection.guidance
            reward = guidance.grade.reward if given == "verified" else given
            slots[index] = Slot(guidance.token_ids, guidance.text, reward, guidance.grade.correct, selection=selection)
        return AugmentedGroup(group.question, tuple(slots), triggered=True)

    def take_counts(self) -> dict[str, float]:
        """Metrics of the teacher answers since the last call: left out, scored, and not to be scored."""
        left_out, (scored, unscorable) = self.library.take_counts(), self.scorer.take_counts()
        return {
            "guidance/left_out_incorrect": float(left_out["incorrect"]),
            "guidance/left_out_overlong": float(left_out["overlong"]),
            "guidance/left_out_ungraded": float(left_out["ungraded"]),
            "guidance/scored": float(scored),
            "guidance/unscorable": float(unscorable),
        }


def _checked(request: SelectionRequest, selected: Sequence[Selection], selector: str) -> list[Selection]:
    """`selected`, if it keeps the selector's contract: distinct candidates of the request, at most k of them."""
    chosen = [next((i for i, c in enumerate(request.candidates) if c is s.guidance), -1) for s in selected]
    if len(chosen) > request.k or -1 in chosen or len(set(chosen)) < len(chosen):
        raise PluginError(
            f"{selector}.select must choose at most {request.k} distinct candidates of its request; "
            f"it chose {len(chosen)} (candidates {chosen}, -1 = not a candidate)"
        )
    return list(selected)
