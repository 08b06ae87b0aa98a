"""Candidates that may be proposed, each with the suggestions that it is made from."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from nas.errors import UserError
from nas.samplers.mutation import mutated
from nas.space.candidate import Candidate
from nas.space.search_space import Feasible, SearchSpace
from nas.space.suggestions import suggestable

DRAWS = 20_000  # at most, until enough are feasible
TRIES = 10  # mutations, at most, for each one that is wanted
KNOWN = 4_096  # candidates of trials that are kept, because every proposal looks at them


class Draft(NamedTuple):
    """Suggestions, and the candidate that the space makes of them."""

    params: Mapping[str, Any]
    candidate: Candidate


class Drafts:
    """Makes feasible candidates of a space."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._known = lru_cache(maxsize=KNOWN)(lambda items: self._feasible(dict(items)))

    def of(self, params: Mapping[str, Any]) -> Draft:
        """What these suggestions make, feasible or not."""
        return Draft(params, self.space.decode(params))

    def known(self, params: Mapping[str, Any]) -> Draft | None:
        """What the suggestions of a trial make; None where they are none of the space, or outside its limits."""
        found: Draft | None = self._known(tuple(params.items()))
        return found

    def _feasible(self, params: dict[str, Any]) -> Draft | None:
        try:
            whole = {n: suggestable(n, params[n], of) for n, of in self.space.distributions.items()}
        except (KeyError, UserError):
            return None
        draft = self.of(whole)
        return draft if self.is_feasible(draft) else None

    def is_feasible(self, draft: Draft) -> bool:
        """Whether it is within the limits."""
        return isinstance(self.space.check(draft.candidate), Feasible)

    def drawn(self, rng: random.Random) -> Iterator[Draft]:
        """Uniform draws that are feasible; they end where hardly any is."""
        draws = (self.of(self.space.draw(rng)) for _ in range(DRAWS))
        return filter(self.is_feasible, draws)

    def mutants(
        self, parents: Sequence[Draft], seen: Iterable[Candidate], count: int, rng: random.Random
    ) -> list[Draft]:
        """So many small changes of these that are feasible and new, or fewer where most are not."""
        passed = set(seen)

        def new() -> Iterator[Draft]:
            for _ in range(TRIES * count):
                draft = self.of(mutated(rng.choice(parents).params, self.space.distributions, rng))
                if draft.candidate not in passed and self.is_feasible(draft):
                    passed.add(draft.candidate)
                    yield draft

        return [*islice(new(), count)]
