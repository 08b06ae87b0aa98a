"""What is said of durations, proposals and limits, in words that several views share."""

from datetime import timedelta

from nas.network.limits import EPOCHS, LIMITS
from nas.space.recipe import Recipe
from nas.space.rejections import REPEATED, TOO_SMALL, Ledger, Reason
from nas.space.search_space import SearchSpace
from nas.study.location import StudyLocation


def duration(seconds: float) -> str:
    """A duration in hours, minutes and seconds, such as 0:21:03."""
    return str(timedelta(seconds=round(seconds)))


def roughly(seconds: float) -> str:
    """A duration as one says it, such as `about 12 min`."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


def ledger_line(ledger: Ledger) -> str:
    """What became of the proposals, in one line."""
    reasons = sorted(ledger.reasons.items(), key=lambda item: -item[1])
    detail = " · ".join(f"{reason} {count:,}" for reason, count in reasons)
    line = f"{ledger.rejected:,} of {ledger.proposals:,} proposals rejected before training"
    return f"{line}: {detail}" if detail else line


ADVICE: dict[Reason, str] = {
    **{limit.name: limit.advice for limit in LIMITS},
    TOO_SMALL: "Let the space propose fewer poolings or smaller kernels, so that layers fit on their maps.",
    REPEATED: "Let the space propose more.",
}


def diagnosis(ledger: Ledger) -> str:
    """Why nothing new fits: the limit that rejects most, the nearest miss, and what to widen."""
    reason, count = max(ledger.reasons.items(), key=lambda item: item[1])
    missing = "new" if reason == REPEATED else "feasible"
    lines = [
        f"Nothing {missing} among {ledger.proposals:,} candidates drawn from the space.",
        f"{reason} rejects most: {count:,} of them.",
    ]
    if ledger.nearest is not None:
        lines.append(f"The nearest miss is {ledger.nearest}.")
    lines.append(ADVICE[reason])
    return "\n".join(lines)


def images_held_out(train: int, judged: int, networks: int) -> str:
    """On how many images a candidate is trained and judged, by so many networks; more than one share all images."""
    if networks == 1:
        return f"{train:,} training and {judged:,} validation images"
    return f"{judged:,} training images; a candidate is {networks} networks, each judged on what it is not trained on"


def headline(space: SearchSpace, location: StudyLocation) -> str:
    """What is searched within which limits."""
    limits = [limit.said(bound) for limit, bound in space.constraints.bounds if limit is not EPOCHS]
    parts = [*limits, f"{space.recipe.epochs} epochs"]
    if space.recipe.batch_size != Recipe().batch_size:
        parts.append(f"batches of {space.recipe.batch_size}")
    if space.cross_validation:
        parts.append(f"cross-validation, {space.cross_validation} times")
    return f"study {location.name} on {space.dataset} · {' · '.join(parts)}"
