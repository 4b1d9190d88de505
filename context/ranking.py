"""Rankings: how two become one, and how many places a text that many items share may take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

RRF_K = 60  # of the paper; flattens the first places, so that both rankings are heard
_SHARE = 5


def fuse(rankings: Iterable[Sequence[int]]) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: each (offset, score), best first, equal ones newest first.

    The score is the sum of 1 / (60 + place) over the rankings that hold the offset.

    References
    ----------
    Cormack, Clarke & Buettcher (2009), Reciprocal Rank Fusion outperforms Condorcet and individual
    Rank Learning Methods, SIGIR.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for place, offset in enumerate(ranking, 1):
            scores[offset] = scores.get(offset, 0.0) + 1 / (RRF_K + place)
    return sorted(scores.items(), key=lambda pair: (-pair[1], -pair[0]))


def quotas(counts: Sequence[int], limit: int) -> list[int]:
    """How many items of each text are shown, `counts` being of the best text first.

    At first a text gets a fifth of the page at most, so that one which a million items share leaves
    room for others; what then is free goes to the best ones.
    """
    share, free, given = max(1, limit // _SHARE), limit, [0] * len(counts)
    for most in (share, limit):
        for i, count in enumerate(counts):
            more = min(count, most, given[i] + free) - given[i]
            given[i] += more
            free -= more
    return given
