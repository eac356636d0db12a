"""Masks to polygons, for the tools in which people correct masks."""

import numpy as np

TOLERANCE = 1.0  # pixels that a polygon may leave the mask's edge by

# Directions along the edges between pixels: right, down, left, up; the region lies on the right hand.
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def polygons(region: np.ndarray, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """A region, (H, W) bool, to one polygon for each connected part: [(P, 2) float x, y in pixels], 0 the picture's left and top edge.

    A part with holes is one polygon too: a line of no width leads to each hole and back. With `tolerance` 0 the polygons are exact.
    """
    outer: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    for loop in _loops(region):
        (outer if _area(loop) > 0 else holes).append(loop)
    inside: list[list[np.ndarray]] = [[] for _ in outer]
    for hole in holes:
        point = hole[0] + _right_of(
            hole[1] - hole[0]
        )  # the middle of a pixel that belongs to the part
        around = [i for i, loop in enumerate(outer) if _contains(loop, point)]
        inside[min(around, key=lambda i: _area(outer[i]))].append(hole)
    return [
        _with_holes(_simplify(loop, tolerance), [_simplify(hole, tolerance) for hole in own])
        for loop, own in zip(outer, inside, strict=True)
    ]


def _loops(region: np.ndarray) -> list[np.ndarray]:
    """Closed ways around the edges of a region, corners only: (P, 2) int x, y; clockwise around parts, the other way around holes."""
    padded = np.pad(region, 1)
    here = padded[1:-1, 1:-1]
    beside = (
        padded[:-2, 1:-1],
        padded[1:-1, 2:],
        padded[2:, 1:-1],
        padded[1:-1, :-2],
    )  # above, right, below, left
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))  # of the pixel's upper, right, lower, left edge
    edges: dict[tuple[int, int], set[int]] = {}
    for direction, (other, (dx, dy)) in enumerate(zip(beside, starts, strict=True)):
        for y, x in zip(*np.nonzero(here & ~other), strict=True):
            edges.setdefault((int(x) + dx, int(y) + dy), set()).add(direction)
    loops = []
    while edges:
        start = point = next(iter(edges))
        direction = min(edges[point])
        corners = []
        while True:
            edges[point].discard(direction)
            if not edges[point]:
                del edges[point]
            before, point = (
                direction,
                (point[0] + STEPS[direction][0], point[1] + STEPS[direction][1]),
            )
            if point == start:
                break
            # Two ways lead on where pixels touch at a corner: the right one keeps parts apart.
            ahead = edges[point]
            direction = next(
                turn for turn in ((before + 1) % 4, before, (before + 3) % 4) if turn in ahead
            )
            if direction != before:
                corners.append(point)
        first = corners[0], corners[-1]
        if not (first[0][0] == start[0] == first[1][0] or first[0][1] == start[1] == first[1][1]):
            corners.append(start)
        loops.append(np.array(corners))
    return loops


def _area(loop: np.ndarray) -> float:
    """Signed area [pixels]: positive where the region is inside."""
    x, y = loop[:, 0], loop[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2


def _right_of(step: np.ndarray) -> np.ndarray:
    """Half a pixel along a step of any length, and half a pixel to its right."""
    along = np.sign(step) / 2
    return along + np.array([-along[1], along[0]])


def _contains(loop: np.ndarray, point: np.ndarray) -> bool:
    x, y = loop[:, 0], loop[:, 1]
    nx, ny = np.roll(x, -1), np.roll(y, -1)
    crosses = ((y > point[1]) != (ny > point[1])) & (x == nx)  # all edges are upright or level
    return bool(np.count_nonzero(crosses & (x > point[0])) % 2)


def _simplify(loop: np.ndarray, tolerance: float) -> np.ndarray:
    """Fewer corners, none of the left-out ones farther than `tolerance` from the new edge (Douglas-Peucker)."""
    tolerance = min(tolerance, abs(_area(loop)) ** 0.5 / 20)  # small things keep their shape
    if tolerance <= 0 or len(loop) < 5:
        return loop.astype(float)
    far = int(np.argmax(((loop - loop[0]) ** 2).sum(1)))
    closed = np.concatenate([loop, loop[:1]]).astype(float)
    keep = {0, far}
    spans = [(0, far), (far, len(loop))]
    while spans:
        a, b = spans.pop()
        line, points = closed[b] - closed[a], closed[a + 1 : b] - closed[a]
        if not len(points):
            continue
        length = float(np.hypot(*line))
        distance = (
            np.abs(line[0] * points[:, 1] - line[1] * points[:, 0]) / length
            if length
            else np.hypot(points[:, 0], points[:, 1])
        )
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            middle = a + 1 + worst
            keep.add(middle)
            spans += [(a, middle), (middle, b)]
    return closed[sorted(keep)] if len(keep) > 2 else loop.astype(float)


def _with_holes(loop: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    for hole in holes:
        distance = ((loop[:, None] - hole[None]) ** 2).sum(2)
        i, j = np.unravel_index(int(np.argmin(distance)), distance.shape)
        loop = np.concatenate([loop[: i + 1], hole[j:], hole[: j + 1], loop[i:]])
    return loop
