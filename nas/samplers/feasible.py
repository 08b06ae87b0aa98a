"""Proposing candidates until one is feasible, so that a rejected one never becomes a trial; and the ledger."""

import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeAlias, assert_never

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.errors import UserError
from nas.network.architecture import notation
from nas.optuna_internals.attributes import as_system_attributes
from nas.optuna_internals.snapshot import MAX_LEARNED, as_study, learned_from
from nas.optuna_internals.studies import id_of, storage_of
from nas.optuna_internals.trials import begin, run_enqueued
from nas.samplers.blueprint import BlueprintSampler, is_drawn
from nas.samplers.carried_on import carried_on
from nas.samplers.evolution import EvolutionSampler
from nas.samplers.names import SamplerName
from nas.space.candidate import digest, to_json
from nas.space.rejections import DUPLICATE, MAX_PROPOSALS, Ledger
from nas.space.search_space import Feasible, Rejected, SearchSpace
from nas.space.seeds import derive_seed
from nas.space.suggestions import draw_value
from nas.system.threads import one_blas_thread

SAMPLER_PROPOSALS = 200  # then uniform draws: a sampler may have learned its way into a corner where nothing is left
GP_PROPOSALS = 20  # the same for gp, which fits its model for each of them; measured: a second each
REFITS = 100  # a study longer than MAX_LEARNED is learned from anew whenever it has grown by this part of it
MANY_RUNNING = 8  # from so many workers on, it is learned from anew when an eighth of their trials have ended
Maker: TypeAlias = Callable[[int], BaseSampler]


class NothingNewError(Exception):
    """No new feasible candidate among many proposals; `ledger` says why."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(f"no new feasible candidate among {ledger.proposals:,} proposals")
        self.ledger = ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Parameters that stand for a feasible candidate, and what became of those proposed before it."""

    number: int  # of the trial to come
    params: dict[str, Any]
    feasible: Feasible
    ledger: Ledger


class FeasibleSampler:
    """Lets an Optuna sampler propose until a candidate is within the limits and new.

    `make` gives the sampler for a seed; each trial has its own seed, from `seed` and the trial's number, so that a
    resumed search draws what an uninterrupted one would. `seen` holds the digests that count as duplicates.
    """

    def __init__(self, make: Maker, space: SearchSpace, seed: int, seen: set[str]) -> None:
        self._make = make
        self._space = space
        self._seed = seed
        self._seen = set(seen)
        self._model: _Model | None = None
        self.distributions = space.distributions

    def propose(self, study: Study) -> Proposal:
        """The next trial's candidate.

        Raises:
            NothingNewError: nothing new was feasible among MAX_PROPOSALS.
        """
        with one_blas_thread():
            return self._propose(study)

    def _propose(self, study: Study) -> Proposal:
        trial = create_trial(state=TrialState.RUNNING)  # no storage knows it yet
        trial.number = storage_of(study).get_n_trials(id_of(study))
        for params in self.first:
            match self._space.check(self._space.decode(params)):
                case Feasible() as feasible if digest(feasible.candidate) not in self._seen:
                    return self._taken(trial.number, params, feasible, Ledger())
        unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
        running = [other for other in unfinished if other.state is TrialState.RUNNING]
        model = self._model_for(study, trial.number - len(unfinished), len(running))
        seed = derive_seed(self._seed, "proposal", trial.number)
        sampler, rng = self._make(seed), random.Random(seed)
        drawn = (self._space.draw(rng) for _ in itertools.count())
        learned = carried_on(model.learned) if isinstance(sampler, GPSampler) else model.learned
        asking = as_study(learned + running, kept_in=study)
        if isinstance(sampler, BlueprintSampler):
            if model.promising is None or len(running) < MANY_RUNNING:
                model.promising = sampler.ranked(asking, trial)
            first = itertools.islice(drawn, SAMPLER_PROPOSALS if is_drawn(trial.number) else 0)
            proposed: Iterator[dict[str, Any]] = itertools.chain(first, model.promising)
        else:
            proposed = self._proposed(sampler, asking, trial, rng)
        ledger = Ledger()
        for params in itertools.islice(itertools.chain(proposed, drawn), MAX_PROPOSALS):
            candidate = self._space.decode(params)
            match self._space.check(candidate):
                case Rejected() as rejected:
                    ledger = ledger.reject(rejected, candidate.architecture)
                case Feasible() if digest(candidate) in self._seen:
                    ledger += DUPLICATE
                case Feasible() as feasible:
                    return self._taken(trial.number, params, feasible, ledger)
        raise NothingNewError(ledger)

    @cached_property
    def first(self) -> list[dict[str, Any]]:
        """The parameters of the candidates that the space names to begin with."""
        seeds = (derive_seed(self._seed, "start", place) for place in itertools.count())
        return [self._space.complete(p, random.Random(s)) for p, s in zip(self._space.start, seeds, strict=False)]

    def not_tried(self) -> Iterator[str]:
        """Which of the candidates to begin with are outside the limits, and why."""
        for place, params in enumerate(self.first):
            match self._space.check(self._space.decode(params)):
                case Rejected() as rejected:
                    yield f"start[{place}] is not tried, as it is outside the limits: {_why(rejected)}"

    def proposal_for(self, number: int, params: Mapping[str, Any]) -> Proposal:
        """The candidate that a person has enqueued as this trial; parameters that are missing are drawn.

        Raises:
            UserError: it is outside the limits, or not of the space.
        """
        rng = random.Random(derive_seed(self._seed, "enqueued", number))
        complete = self._space.complete(params, rng)
        match self._space.check(self._space.decode(complete)):
            case Feasible() as feasible:
                return self._taken(number, complete, feasible, Ledger())
            case Rejected() as rejected:
                raise UserError(f"it is outside the limits: {_why(rejected)}")

    def _taken(self, number: int, params: dict[str, Any], feasible: Feasible, ledger: Ledger) -> Proposal:
        self._seen.add(digest(feasible.candidate))
        return Proposal(number=number, params=params, feasible=feasible, ledger=ledger.accept())

    def _proposed(
        self, sampler: BaseSampler, study: Study, trial: FrozenTrial, rng: random.Random
    ) -> Iterator[dict[str, Any]]:
        """What a sampler of Optuna proposes from what it has learned."""
        if type(sampler) is RandomSampler:  # it draws uniformly itself, and takes 30 times as long
            return iter(())
        most = GP_PROPOSALS if isinstance(sampler, GPSampler) else SAMPLER_PROPOSALS
        return itertools.islice(_proposals(sampler, study, trial, self.distributions, rng), most)

    def _model_for(self, study: Study, finished: int, running: int) -> "_Model":
        """What is learned from the trials that have ended: anew with each, but in a long study or with many workers.

        With one worker that depends on the trial's number alone, so that a resumed search draws what an uninterrupted
        one would.
        """
        upto = finished - finished % (max(1, finished // REFITS) if finished > MAX_LEARNED else 1)
        if self._model is None or upto - self._model.upto >= max(1, running // MANY_RUNNING):
            trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()][:upto]
            self._model = _Model(upto=upto, learned=learned_from(trials))
        return self._model


def _why(rejected: Rejected) -> str:
    return ", ".join(map(str, rejected.violations)) or "a layer does not fit on its map"


@dataclass(slots=True, kw_only=True)
class _Model:
    """Which of the first trials that have ended proposals are learned from, and what has been made of them."""

    upto: int
    learned: list[FrozenTrial]
    promising: Iterator[dict[str, Any]] | None = None  # what `blueprint` has put in order, and nobody has taken yet


def _proposals(
    sampler: BaseSampler, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution], rng: random.Random
) -> Iterator[dict[str, Any]]:
    """What a sampler proposes, one after the other, without end."""
    varied = {name: distribution for name, distribution in space.items() if not distribution.single()}
    while True:
        params = sampler.sample_relative(study, trial, varied)
        for name, distribution in space.items():
            if distribution.single():
                params[name] = draw_value(distribution, rng)
            elif name not in params:
                params[name] = sampler.sample_independent(study, trial, name, distribution)
        yield params


def make_sampler(name: SamplerName, space: SearchSpace, study_seed: int) -> Maker:
    """For `FeasibleSampler`: the Optuna sampler of this name for a seed.

    Quasi-random draws are one sequence over the whole study, so they keep the study's seed. So does `blueprint`, whose
    draws all its proposals share.
    """
    match name:
        case "blueprint":
            blueprint = BlueprintSampler(space, seed=study_seed)
            return lambda _: blueprint
        case "evolution":
            return lambda seed: EvolutionSampler(seed=seed)
        case "tpe":
            return lambda seed: optuna.samplers.TPESampler(seed=seed)
        case "random":
            return lambda seed: optuna.samplers.RandomSampler(seed=seed)
        case "gp":
            return lambda seed: optuna.samplers.GPSampler(seed=seed)
        case "qmc":
            return lambda seed: _quasi_random_sampler(derive_seed(study_seed, "quasi-random"))
        case _:
            assert_never(name)


def _quasi_random_sampler(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # its interface, which may change, is used here alone
        return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


def ask(study: optuna.Study, sampler: FeasibleSampler, seed: int) -> optuna.Trial:
    """A new trial: its parameters and attributes are written whole or not at all.

    Raises:
        NothingNewError: see `FeasibleSampler.propose`.
    """
    return begin(study, _template(sampler.propose(study), sampler, seed))


def take_up(trial: optuna.Trial, params: Mapping[str, Any], sampler: FeasibleSampler, seed: int) -> None:
    """Begin a trial that was enqueued with these parameters.

    Raises:
        UserError: see `FeasibleSampler.proposal_for`; nothing is written.
    """
    run_enqueued(trial, _template(sampler.proposal_for(trial.number, params), sampler, seed))


def _template(proposal: Proposal, sampler: FeasibleSampler, seed: int) -> FrozenTrial:
    """A running trial with all that is kept of a candidate."""
    candidate, price = proposal.feasible.candidate, proposal.feasible.cost
    attributes = {
        "notation": notation(candidate.architecture),
        "params": price.params,
        "macs": price.macs,
        "receptive_field": price.receptive_field,
        "peak_activation_bytes": price.peak_activation_bytes,
        "seed": derive_seed(seed, "training", proposal.number),
        "rejected_before_it": proposal.ledger.rejected,
        "digest": digest(candidate),
    }
    kept = {"ledger": asdict(proposal.ledger), "architecture": to_json(candidate)}
    return create_trial(
        state=TrialState.RUNNING,
        params=proposal.params,
        distributions=sampler.distributions,
        user_attrs=attributes,
        system_attrs=as_system_attributes(kept),
    )
