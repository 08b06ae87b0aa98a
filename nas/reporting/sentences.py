"""What is said of durations, proposals and limits, in words that several views share."""

from datetime import timedelta

from nas.space.rejections import Ledger, Reason
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


SMALLER = "Loosen that limit, or let the space propose smaller networks (fewer cells, fewer kernels)."
FITTING = "Let the space propose fewer poolings or smaller kernels, so that layers fit on their maps."
ADVICE: dict[Reason, str] = {
    "max_params": SMALLER,
    "max_macs": SMALLER,
    "max_activation_bytes": SMALLER,
    "max_epochs": "Loosen that limit, or give the recipe fewer epochs.",
    "min_receptive_field": "Loosen that limit, or let the space propose more cells, larger kernels or more poolings.",
    "forbid linear": "Let the space propose a convolutional head, and no kernel as large as the map it meets.",
    "map too small": FITTING,
    "duplicate": "Let the space propose more.",
}


def diagnosis(ledger: Ledger) -> str:
    """Why nothing new fits: the limit that rejects most, the nearest miss, and what to widen."""
    reason, count = max(ledger.reasons.items(), key=lambda item: item[1])
    missing = "new" if reason == "duplicate" else "feasible"
    lines = [
        f"Nothing {missing} among {ledger.proposals:,} candidates drawn from the space.",
        f"{reason} rejects most: {count:,} of them.",
    ]
    if ledger.nearest is not None:
        lines.append(f"The nearest miss is {ledger.nearest}.")
    lines.append(ADVICE[reason])
    return "\n".join(lines)


def headline(space: SearchSpace, location: StudyLocation) -> str:
    """What is searched within which limits."""
    limits = space.constraints
    parts = [
        f"≤ {limits.max_params:,} params" if limits.max_params else "",
        f"≤ {limits.max_macs:,} MACs" if limits.max_macs else "",
        f"≤ {limits.max_activation_bytes:,} activation bytes" if limits.max_activation_bytes else "",
        f"receptive field ≥ {limits.min_receptive_field}" if limits.min_receptive_field else "",
        "no fully connected layer" if "linear" in limits.forbid else "",
        f"{space.recipe.epochs} epochs",
    ]
    return f"study {location.name} on {space.dataset} · {' · '.join(part for part in parts if part)}"
