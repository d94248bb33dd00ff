"""Guidance (Eq. 3 to 5): which groups need it, which answers they get, and what the intervention makes of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from ampo_registry.errors import RunError
from ampo_registry.protocols import BuildContext, Selector, Trigger
from ampo_registry.samples import InterventionRequest, Outcome, Sample
from ampo_registry.seams import Intervention
from ampo_registry.selectors import SelectorSpec
from ampo_registry.step import Schedule, StepContext
from ampo_registry.types import Guidance, RolloutGroup, Selection, SelectionRequest

from ampo_core.checked.guidance import intervened
from ampo_core.config.objective import ObjectiveConfig
from ampo_core.config.tree import GuidanceConfig
from ampo_core.data.seeds import derive_seed, request_rng
from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.agreement import agree, made, selected
from ampo_core.loop.groups import AugmentedGroup, GuidedBatch, GuidedQuestion, unguided
from ampo_core.loop.scoring import PolicyScorer
from ampo_core.loop.teachers import TeacherLibrary


@dataclass(frozen=True, slots=True)
class Guide:
    """What rescues a failed group: the parts of the block `guidance`, and the run's seed.

    `terms` are the auxiliary terms, by name whether it trains a selected teacher answer of every question of the batch;
    `for_all`: one is selected for every question in any case.
    """

    config: GuidanceConfig
    trigger: Trigger
    library: TeacherLibrary
    selector: Selector
    intervention: Intervention
    replacements: Schedule
    scorer: PolicyScorer
    seed: int
    terms: Mapping[str, bool]
    for_all: bool = False
    ranks: Ranks | None = None

    @classmethod
    def build(
        cls,
        config: GuidanceConfig,
        library: TeacherLibrary,
        scorer: PolicyScorer,
        context: BuildContext,
        objective: ObjectiveConfig | None = None,
    ) -> Guide:
        """The parts, built in `context`."""
        auxiliary = objective.auxiliary if objective is not None else {}
        return cls(
            config=config,
            trigger=context.build(config.trigger),
            library=library,
            selector=context.build(config.selector),
            intervention=context.build(config.intervention),
            replacements=context.build(config.replacements, "replacements"),
            scorer=scorer,
            seed=context.seed,
            terms={name: term.samples == "guidance" for name, term in auxiliary.items()},
            ranks=library.ranks,
            for_all=objective is not None and objective.advantage.reads_selections,
        )

    def triggered(self, groups: Sequence[RolloutGroup], context: StepContext) -> list[int]:
        """Indices of the groups that need guidance; a group without a wrong slot has nothing to replace."""
        fired = [i for i, group in enumerate(groups) if group.wrong and self.trigger.fires(group, context)]
        agree(self.ranks, "guidance.trigger", "which groups it fires for", lambda: fired, context.step)
        return fired

    def asked(self, groups: Sequence[RolloutGroup], fired: Sequence[int]) -> list[int]:
        """Indices of the groups that teacher answers are selected for: those that fired, or all of them where an
        auxiliary term trains an answer of each question or the advantage reads whose it is."""
        return list(range(len(groups))) if self.for_all or any(self.terms.values()) else list(fired)

    def candidates(self, groups: Sequence[RolloutGroup], context: StepContext) -> list[tuple[Guidance, ...]]:
        """The usable teacher answers to the question of each group, in the pool's order."""
        if self.library.late is not None:
            return self.library.late_candidates(groups, context.step)
        return self.library.candidates([group.question for group in groups])

    def select(
        self,
        groups: Sequence[RolloutGroup],
        candidates: Sequence[tuple[Guidance, ...]],
        positions: Sequence[int],
        fired: Sequence[bool],
        context: StepContext,
    ) -> list[list[Selection]]:
        """Selections for each group, in one call of the selector: k = min(k0, N_g, wrong slots) for one that fired, and
        one for the others.

        `positions` are the groups' places in the batch. Raises RunError for a schedule of k0 that comes to less than 1.
        """
        wanted = context.value(self.replacements)
        if not 1 <= wanted < float("inf"):
            text = f"the schedule of guidance.replacements came to {wanted:g}; it must be a number of at least 1"
            raise RunError(f"step {context.step}: {text}")
        sizes = [
            min(round(wanted), len(usable), len(group.wrong)) if needs else min(1, len(usable))
            for group, usable, needs in zip(groups, candidates, fired, strict=True)
        ]
        return self._chosen(groups, candidates, positions, sizes, context)

    def ranked(
        self,
        groups: Sequence[RolloutGroup],
        candidates: Sequence[tuple[Guidance, ...]],
        positions: Sequence[int],
        context: StepContext,
    ) -> list[list[Selection]]:
        """What the selector says of all candidates of each group: as `select`, with room for every one of them."""
        return self._chosen(groups, candidates, positions, list(map(len, candidates)), context)

    def _chosen(
        self,
        groups: Sequence[RolloutGroup],
        candidates: Sequence[tuple[Guidance, ...]],
        positions: Sequence[int],
        sizes: Sequence[int],
        context: StepContext,
    ) -> list[list[Selection]]:
        requests = [
            SelectionRequest(
                question=group.question,
                rollouts=group.rollouts,
                candidates=usable,
                k=k,
                rng=request_rng(self.seed, context.step, position),
                grades=group.grades,
            )
            for group, usable, position, k in zip(groups, candidates, positions, sizes, strict=True)
        ]
        asked = [request for request in requests if request.k > 0]
        chosen = self.selector.select(asked, context)
        agree(self.ranks, "guidance.selector", "what it selects", lambda: selected(chosen), context.step)
        answers = iter(chosen)
        return [next(answers) if request.k > 0 else [] for request in requests]

    def intervene(
        self,
        groups: Sequence[RolloutGroup],
        guidance: Mapping[int, tuple[tuple[Guidance, ...], list[Selection]]],
        fired: Sequence[int],
        position: int,
        context: StepContext,
    ) -> GuidedBatch:
        """What each group is trained with: one that fired as the intervention says, the others as they were sampled.

        `guidance` holds candidates and selections by index; `position` is the first group's place in the batch.
        """
        given = self.config.teacher_reward
        requests = [
            InterventionRequest(
                group=groups[i],
                selections=tuple(guidance[i][1]),
                candidates=guidance[i][0],
                position=position + i,
                rng=Random(derive_seed("replacement", self.seed, context.step, position + i)),
                teacher_reward=None if given == "verified" else given,
            )
            for i in fired
        ]
        found = intervened(self.intervention, requests, context, self.terms)
        questions = [unguided(group) for group in groups]
        for request, guided, i in zip(requests, found.guided, fired, strict=True):
            parts = tuple(AugmentedGroup(tuple(group)) for group in guided.groups if group)
            questions[i] = GuidedQuestion(request.question, parts, tuple(guided.extra), triggered=True)
        batch = GuidedBatch(
            tuple(self._with_guidance(question, guidance.get(i)) for i, question in enumerate(questions)),
            found.extra,
        )
        agree(self.ranks, "guidance.intervention", "what it makes of groups", lambda: made(batch), context.step)
        return batch

    def _with_guidance(
        self, question: GuidedQuestion, guidance: tuple[tuple[Guidance, ...], list[Selection]] | None
    ) -> GuidedQuestion:
        """`question` with what was selected for it, the best answer as a sample of each auxiliary term that trains
        one."""
        if guidance is None:
            return question
        candidates, selections = guidance
        terms = [name for name, trained in self.terms.items() if trained and selections]
        answers = tuple(Sample.answer(question.question, selections[0], term=term) for term in terms)
        return replace(question, answers=answers, candidates=candidates, selections=tuple(selections))

    def feedback(
        self, groups: Sequence[RolloutGroup], questions: Sequence[GuidedQuestion], kept: Collection[int], step: int
    ) -> None:
        """Tell a selector that wants to know it what became of `groups`, all that were sampled in `step`: what they
        were trained with, and the indices of those that the group filter kept."""
        tell = getattr(self.selector, "feedback", None)
        if tell is None or getattr(tell, "__func__", None) is SelectorSpec.feedback:  # which does nothing
            return
        tell(
            [
                Outcome(
                    question=question.question,
                    grades=group.grades,
                    candidates=question.candidates,
                    selections=question.selections,
                    samples=question.samples,
                    advantages=tuple(value for part in question.groups for value in part.mean_advantages),
                    trained=i in kept,
                    step=step,
                    position=i,
                )
                for i, (group, question) in enumerate(zip(groups, questions, strict=True))
            ]
        )

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
