"""Sampling: every trial is feasible and new, whichever sampler proposes; and the ledger of what was rejected."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_info, threadpool_limits

from nas.network.architecture import Architecture, notation
from nas.network.layers import Conv, Head, MaxPool
from nas.network.limits import MACS, PARAMS, Constraints, Violation
from nas.optuna_internals.studies import new_study
from nas.samplers.blueprint import STARTUP, BlueprintSampler
from nas.samplers.feasible import FeasibleSampler, NothingNewError, ask, make_sampler
from nas.samplers.names import SAMPLERS, SamplerName
from nas.space.candidate import Candidate, digest
from nas.space.loading import load_space
from nas.space.recipe import Recipe
from nas.space.rejections import DUPLICATE, MAX_PROPOSALS, Ledger, NearestMiss, probe
from nas.space.search_space import Feasible, Rejected, SearchSpace
from nas.space.seeds import derive_seed
from nas.space.suggestions import Trial
from nas.study.records import records
from nas.tuner.pruning import make_pruner

DIGITS = load_space(str(Path(__file__).parent / "data" / "digits.py"))
MNIST = load_space("mnist")


def sample_three(trial: Trial) -> Candidate:
    """Networks of 1, 2 or 3 kernels; `same` never varies and `unused` changes nothing."""
    trial.suggest_int("same", 5, 5)
    trial.suggest_float("unused", 0.0, 1.0)
    layers = (MaxPool(), Conv(out_channels=trial.suggest_int("kernels", 1, 3)))
    architecture = Architecture(input_shape=(1, 8, 8), num_classes=2, layers=layers, head=Head())
    return Candidate(architecture=architecture, recipe=Recipe(epochs=1))


THREE = SearchSpace(sample=sample_three, constraints=Constraints(), dataset="toy", recipe=Recipe(epochs=1))


pytestmark = pytest.mark.usefixtures("one_thread")


def study_in(
    storage: optuna.storages.BaseStorage | None, pruner: optuna.pruners.BasePruner | None = None
) -> optuna.Study:
    return new_study("study", storage, pruner)


def sampler_for(study: optuna.Study, space: SearchSpace, name: SamplerName, seed: int = 0) -> FeasibleSampler:
    seen = {trial.user_attrs["digest"] for trial in study.trials}
    return FeasibleSampler(make_sampler(name, space, seed), space, seed, seen)


def search(study: optuna.Study, sampler: FeasibleSampler, trials: int) -> Ledger:
    """Ask for so many trials, each scored by its parameters: one in three stopped early, the others told."""
    ledger = Ledger()
    for _ in range(trials):
        trial = ask(study, sampler, 0)
        record = records(study)[-1]
        ledger += record.ledger
        score = 1 - record.params / 20_000
        trial.report(score, 1)
        trial.should_prune()
        if trial.number % 3:
            study.tell(trial, score)
        else:
            study.tell(trial, state=TrialState.PRUNED)
    return ledger


@pytest.mark.parametrize(("url", "pruner"), [(None, None), ("sqlite://", make_pruner("hyperband", 9))])
@pytest.mark.parametrize(
    ("space", "name", "trials"),
    [
        *((DIGITS, "tpe", 16), (DIGITS, "random", 12), (DIGITS, "qmc", 12), (DIGITS, "gp", 11)),
        *((DIGITS, "blueprint", STARTUP + 4), (DIGITS, "evolution", 24)),
        *((MNIST, "tpe", 12), (MNIST, "random", 8), (MNIST, "qmc", 8), (MNIST, "gp", 4)),
        *((MNIST, "blueprint", STARTUP + 2), (MNIST, "evolution", 22)),
    ],
)
def test_feasible_sampler_makes_only_feasible_new_trials(
    space: SearchSpace, name: SamplerName, trials: int, url: str | None, pruner: optuna.pruners.BasePruner | None
) -> None:
    study = study_in(None if url is None else optuna.storages.RDBStorage(url), pruner)
    ledger = search(study, sampler_for(study, space, name), trials)
    assert len(study.trials) == trials, "a rejected proposal is no trial"
    assert ledger.proposals - ledger.rejected == trials
    assert ledger.rejected > 0
    candidates = [space.decode(trial.params) for trial in study.trials]
    assert all(isinstance(space.check(candidate), Feasible) for candidate in candidates)
    assert len({digest(candidate) for candidate in candidates}) == trials
    for trial, candidate in zip(study.trials, candidates, strict=True):
        assert trial.distributions == space.distributions
        assert trial.user_attrs["digest"] == digest(candidate), "the candidate is what the trial's parameters stand for"
        for parameter, value in trial.params.items():
            distribution = space.distributions[parameter]
            assert distribution._contains(distribution.to_internal_repr(value))


def mean_score(name: SamplerName, trials: int, last: int) -> float:
    """Of the last trials of a search in which larger networks score lower, which is better."""
    study = study_in(None)
    search(study, sampler_for(study, MNIST, name), trials)
    return fmean(trial.values[0] for trial in study.trials[-last:] if trial.values)


@pytest.mark.parametrize(("name", "trials"), [("tpe", 45), ("blueprint", 30), ("evolution", 60)])
def test_samplers_learn_through_the_feasible_sampler(name: SamplerName, trials: int) -> None:
    """The random sampler draws from the same feasible candidates."""
    assert mean_score(name, trials, 10) < mean_score("random", trials, 10) - 0.1


def test_gp_learns_from_trials_that_were_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of twelve is complete; it needs ten, and else draws at random."""
    study = study_in(None)
    sampler = sampler_for(study, DIGITS, "gp")
    for _ in range(12):
        trial = ask(study, sampler, 0)
        trial.report(1 - records(study)[-1].params / 2_000, 1)
        study.tell(trial, state=TrialState.PRUNED)
    learned = sampler_for(study, DIGITS, "gp").propose(study).params
    monkeypatch.setattr("nas.samplers.feasible.carried_on", lambda _: [])
    assert sampler_for(study, DIGITS, "gp").propose(study).params != learned


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "gp"])
def test_feasible_sampler_resumed_draws_what_an_uninterrupted_one_would(name: SamplerName) -> None:
    straight = study_in(None)
    search(straight, sampler_for(straight, DIGITS, name), STARTUP + 8)
    storage = optuna.storages.RDBStorage("sqlite://")
    for trials in (5, STARTUP, 3):
        resumed = study_in(storage)
        search(resumed, sampler_for(resumed, DIGITS, name), trials)
    assert [trial.params for trial in resumed.trials] == [trial.params for trial in straight.trials]
    assert [trial.values for trial in resumed.trials] == [trial.values for trial in straight.trials]


def test_a_long_study_resumed_draws_what_an_uninterrupted_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.optuna_internals.snapshot.MAX_LEARNED", 8)
    monkeypatch.setattr("nas.samplers.feasible.MAX_LEARNED", 8)
    monkeypatch.setattr("nas.samplers.feasible.REFITS", 4)  # so that every fifth trial learns anew at last
    straight, resumed = study_in(None), study_in(None)
    search(straight, sampler_for(straight, DIGITS, "tpe"), 24)
    for trials in (13, 9, 2):
        search(resumed, sampler_for(resumed, DIGITS, "tpe"), trials)
    assert [trial.params for trial in resumed.trials] == [trial.params for trial in straight.trials]


def test_one_fit_of_blueprint_serves_several_proposals_when_many_run(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[int] = []
    ranked = BlueprintSampler.ranked

    def counted(self: BlueprintSampler, study: optuna.Study, trial: FrozenTrial) -> Iterator[dict[str, Any]]:
        fits.append(trial.number)
        return ranked(self, study, trial)

    monkeypatch.setattr(BlueprintSampler, "ranked", counted)
    study = study_in(None)
    sampler = sampler_for(study, MNIST, "blueprint")
    search(study, sampler, STARTUP)
    fits.clear()
    params = [ask(study, sampler, 0).params for _ in range(14)]
    assert fits == [*range(STARTUP, STARTUP + 8)], "while fewer than eight are in training, what they are counts"
    assert len({str(one) for one in params}) == 14


def test_proposals_are_computed_in_one_thread_of_blas() -> None:
    seen: set[int] = set()

    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    class Looking(optuna.samplers.TPESampler):
        def sample_relative(self, *args: Any) -> dict[str, Any]:
            seen.update(threads())
            return super().sample_relative(*args)

    with threadpool_limits(2, "blas"):
        FeasibleSampler(lambda seed: Looking(seed=seed), DIGITS, 0, set()).propose(new_study("x"))
        assert (seen, threads()) == ({1}, {2})


@pytest.mark.parametrize("name", ["tpe", "random", "qmc"])
def test_feasible_sampler_draws_otherwise_with_another_seed(name: SamplerName) -> None:
    drawn = []
    for seed in (0, 2**40):
        study = study_in(None)
        search(study, sampler_for(study, MNIST, name, seed), 1)
        drawn.append(study.trials[0].params)
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("name", ["tpe", "random", "qmc"])
def test_feasible_sampler_draws_duplicates_again_and_counts_them(name: SamplerName) -> None:
    study = study_in(None)
    sampler = sampler_for(study, THREE, name)
    ledger = search(study, sampler, 3)
    assert sorted(trial.params["kernels"] for trial in study.trials) == [1, 2, 3]
    assert {trial.params["same"] for trial in study.trials} == {5}
    assert ledger.reasons.get("duplicate", 0) == ledger.rejected == ledger.proposals - 3


@pytest.mark.parametrize(("sampler", "most"), [(optuna.samplers.GPSampler, 20), (optuna.samplers.RandomSampler, 200)])
def test_feasible_sampler_asks_the_sampler_no_more_often_than_it_can_bear(
    sampler: type[optuna.samplers.BaseSampler], most: int
) -> None:
    asked = 0

    class Counted(sampler):  # type: ignore[valid-type, misc]
        def sample_relative(self, *args: Any) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            relative: dict[str, Any] = super().sample_relative(*args)
            return relative

    tight = replace(THREE, constraints=Constraints(max_params=10))
    study = study_in(None)
    sampler_of_counted = FeasibleSampler(lambda seed: Counted(seed=seed), tight, 0, set())
    with pytest.raises(NothingNewError):
        sampler_of_counted.propose(study)
    assert asked == most
    assert study.trials == []


def test_feasible_sampler_gives_up_when_nothing_new_is_left() -> None:
    study = study_in(None)
    sampler = sampler_for(study, THREE, "random")
    search(study, sampler, 3)
    with pytest.raises(NothingNewError, match=r"^no new feasible candidate among 20,000 proposals$") as error:
        sampler.propose(study)
    assert error.value.ledger == Ledger(
        proposals=MAX_PROPOSALS, rejected=MAX_PROPOSALS, reasons={"duplicate": MAX_PROPOSALS}
    )


def test_feasible_sampler_gives_up_when_nothing_is_feasible() -> None:
    tight = replace(THREE, constraints=Constraints(max_params=10))
    study = study_in(None)
    with pytest.raises(NothingNewError) as error:
        sampler_for(study, tight, "tpe").propose(study)
    ledger = error.value.ledger
    assert ledger.reasons == {"max_params": MAX_PROPOSALS}
    # one kernel: 9 weights, 2 of the batch normalization, 1 × 2 + 2 of the classifier
    assert ledger.nearest == NearestMiss(
        excess=0.5, notation="p2 c1 | gap 1×1", violations=("15 params, 50.0 % over the limit of 10",)
    )


def test_feasible_sampler_leaves_the_set_it_is_given_alone() -> None:
    study, seen = study_in(None), set[str]()
    FeasibleSampler(make_sampler("random", THREE, 0), THREE, 0, seen).propose(study)
    assert seen == set()


@pytest.fixture
def past_the_random_phase(tmp_path: Path) -> optuna.Study:
    """Two trials are in flight."""
    study = study_in(optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}"))
    search(study, sampler_for(study, MNIST, "random"), 17)
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) > 10
    for _ in range(2):
        ask(study, sampler_for(study, MNIST, "random"), 0)
    return study


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_proposal_writes_nothing(name: SamplerName, past_the_random_phase: optuna.Study) -> None:
    study = past_the_random_phase
    before = study.get_trials()
    assert sampler_for(study, MNIST, name).propose(study).number == 19
    assert study.get_trials() == before


def test_a_sampler_learns_from_so_many_trials_at_most(
    past_the_random_phase: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[FrozenTrial]] = []

    class Seeing(optuna.samplers.RandomSampler):
        def sample_relative(self, study: optuna.Study, *args: Any) -> dict[str, Any]:
            seen.append(study.get_trials(deepcopy=False))
            return super().sample_relative(study, *args)

    study = past_the_random_phase
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    for most in (len(ended), 8):
        monkeypatch.setattr("nas.optuna_internals.snapshot.MAX_LEARNED", most)
        monkeypatch.setattr("nas.samplers.feasible.MAX_LEARNED", most)
        monkeypatch.setattr("nas.optuna_internals.snapshot.BEST_LEARNED", 3)
        FeasibleSampler(lambda seed: Seeing(seed=seed), MNIST, 0, set()).propose(study)
    assert seen[0] == study.trials
    learned = [trial.number for trial in seen[-1] if trial.state.is_finished()]
    best = sorted((trial.value, trial.number) for trial in ended if trial.state is TrialState.COMPLETE)[:3]
    others = [trial.number for trial in ended if trial.number not in {number for _, number in best}]
    assert len(set(learned)) == 8
    assert {number for _, number in best} < set(learned)
    assert {others[0]} < set(learned)
    assert [trial.number for trial in seen[-1] if not trial.state.is_finished()] == [17, 18]
    assert learned == sorted(learned)


def test_probe_counts_every_draw_and_stops_when_asked() -> None:
    feasible, ledger = probe(DIGITS, 3, draws=500, until_feasible=False)
    assert (ledger.proposals, len(feasible)) == (500, 500 - ledger.rejected)
    assert ledger.acceptance == pytest.approx(len(feasible) / 500)
    first, short = probe(DIGITS, 3, draws=500, until_feasible=True)
    assert first == feasible[:1]
    assert short.proposals - short.rejected == 1
    assert probe(DIGITS, 3, draws=500, until_feasible=False)[1] == ledger


def test_probe_names_the_nearest_miss() -> None:
    tight = replace(THREE, constraints=Constraints(max_params=20))
    feasible, ledger = probe(tight, 0, draws=200, until_feasible=False)
    assert {notation(found.candidate.architecture) for found in feasible} == {"p2 c1 | gap 1×1"}
    # two kernels: 18 weights, 4 of the batch normalization, 2 × 2 + 2 of the classifier
    assert ledger.nearest == NearestMiss(
        excess=28 / 20 - 1, notation="p2 c2 | gap 1×1", violations=("28 params, 40.0 % over the limit of 20",)
    )


def rejected(*excesses: float) -> Rejected:
    return Rejected(
        violations=tuple(
            Violation(limit=limit, value=round(100 * (1 + excess)), bound=100)
            for limit, excess in zip((PARAMS, MACS), excesses, strict=False)
        )
    )


def network(kernels: int) -> Architecture:
    return Architecture(input_shape=(1, 8, 8), num_classes=2, layers=(Conv(out_channels=kernels),), head=Head())


def test_ledger_adds_up_by_hand() -> None:
    ledger = Ledger().accept()
    ledger = ledger.reject(rejected(0.5), network(1))
    ledger = ledger.reject(rejected(0.2, 0.9), network(2))  # worse in its second limit
    ledger = ledger.reject(rejected(0.3, 0.1), network(3))  # nearest
    ledger = ledger.reject(rejected(0.3), network(4))  # as near, but later
    ledger = ledger.reject(Rejected(violations=()), network(5))
    ledger += DUPLICATE
    assert (ledger.proposals, ledger.rejected) == (7, 6)
    assert ledger.reasons == {"max_params": 4, "max_macs": 2, "map too small": 1, "duplicate": 1}
    assert ledger.acceptance == pytest.approx(1 / 7)
    assert ledger.nearest is not None
    assert ledger.nearest.excess == pytest.approx(0.3)
    broken = "130 params, 30.0 % over the limit of 100; 110 MACs, 10.0 % over the limit of 100"
    assert str(ledger.nearest) == f"c3 | gap 1×1: {broken}"


def test_ledger_of_nothing_accepts_nothing() -> None:
    assert Ledger().acceptance == 0.0


counts = st.dictionaries(st.sampled_from(["max_params", "max_macs", "duplicate"]), st.integers(1, 9))
ledgers = st.builds(
    Ledger,
    proposals=st.integers(0, 99),
    rejected=st.integers(0, 99),
    reasons=counts,
    nearest=st.none() | st.builds(NearestMiss, excess=st.floats(0, 9), notation=st.just(""), violations=st.just(())),
)


@given(ledgers, ledgers, ledgers)
def test_ledgers_add_in_any_grouping(a: Ledger, b: Ledger, c: Ledger) -> None:
    assert (a + b) + c == a + (b + c)
    assert a + Ledger() == Ledger() + a == a


def test_derive_seed_is_pinned() -> None:
    """Other values would change every search: first eight hexadecimal digits of sha256sum over the text."""
    assert derive_seed(0, "training", 3) == 0xBE0438BA
    assert derive_seed("x") == 0x2D711642
    assert len({derive_seed(seed, part, i) for seed in (0, 1) for part in ("a", "b") for i in range(50)}) == 200
