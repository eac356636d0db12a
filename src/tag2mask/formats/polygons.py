"""Masks to polygons, for the tools in which people correct masks."""

import numpy as np

TOLERANCE = 1.0  # pixels: how far the mask's edge may be from the polygon

# Along the edges between pixels: right, down, left, up; the region is on the right hand.
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def polygons(region: np.ndarray, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """A region, (H, W) bool, to a polygon for each connected part: [(P, 2) float x, y in pixels].

    0 is the picture's left and top edge. A part with holes is one polygon: a line without width
    leads to each hole and back. With `tolerance` 0 the polygons are exact.
    """
    loops = _loops(region)
    outer = [loop for loop in loops if _area(loop) > 0]
    inside: list[list[np.ndarray]] = [[] for _ in outer]
    for hole in (loop for loop in loops if _area(loop) < 0):
        # The middle of a pixel that belongs to the part.
        x, y = np.sign(hole[1] - hole[0]) / 2
        around = [i for i, loop in enumerate(outer) if _contains(loop, hole[0] + (x - y, y + x))]
        inside[min(around, key=lambda i: _area(outer[i]))].append(_simplified(hole, tolerance))
    parts = zip(outer, inside, strict=True)
    return [_with_holes(_simplified(loop, tolerance), holes) for loop, holes in parts]


def _loops(region: np.ndarray) -> list[np.ndarray]:
    """The closed edges of a region: (P, 2) int x, y of corners; clockwise, around holes reverse."""
    padded = np.pad(region, 1)
    here = padded[1:-1, 1:-1]
    above, below = padded[:-2, 1:-1], padded[2:, 1:-1]
    left, right = padded[1:-1, :-2], padded[1:-1, 2:]
    sides = ((above, 0, 0), (right, 1, 0), (below, 1, 1), (left, 0, 1))  # and where its edge starts
    edges: dict[tuple[int, int], set[int]] = {}
    for direction, (other, dx, dy) in enumerate(sides):
        for y, x in np.argwhere(here & ~other).tolist():
            edges.setdefault((x + dx, y + dy), set()).add(direction)
    loops = []
    while edges:
        start = point = next(iter(edges))
        first = direction = min(edges[point])
        corners = []
        while True:
            edges[point].discard(direction)
            if not edges[point]:
                del edges[point]
            before, (dx, dy) = direction, STEPS[direction]
            point = (point[0] + dx, point[1] + dy)
            if point == start:
                break
            # Where pixels touch at a corner there are two ways: the right one keeps parts apart.
            turns = ((before + 1) % 4, before, (before + 3) % 4)
            direction = next(turn for turn in turns if turn in edges[point])
            if direction != before:
                corners.append(point)
        if before != first:
            corners.append(start)
        loops.append(np.array(corners))
    return loops


def _area(loop: np.ndarray) -> float:
    """Signed area [pixels]: positive where the region is inside."""
    x, y = loop.T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(np.roll(x, -1), y)) / 2


def _contains(loop: np.ndarray, point: np.ndarray) -> bool:
    (x, y), (nx, ny) = loop.T, np.roll(loop, -1, axis=0).T
    crosses = ((y > point[1]) != (ny > point[1])) & (x == nx)  # all edges are upright or level
    return bool(np.count_nonzero(crosses & (x > point[0])) % 2)


def _simplified(loop: np.ndarray, tolerance: float) -> np.ndarray:
    """Fewer corners; those left out are at most `tolerance` from the new edge (Douglas-Peucker)."""
    tolerance = min(tolerance, abs(_area(loop)) ** 0.5 / 20)  # small things keep their shape
    if tolerance <= 0 or len(loop) < 5:
        return loop.astype(float)
    far = int(np.argmax(((loop - loop[0]) ** 2).sum(1)))
    closed = np.concatenate([loop, loop[:1]]).astype(float)
    keep, spans = {0, far}, [(0, far), (far, len(loop))]
    while spans:
        a, b = spans.pop()
        line, points = closed[b] - closed[a], closed[a + 1 : b] - closed[a]
        if not len(points):
            continue
        length = float(np.hypot(*line))
        across = np.abs(line[0] * points[:, 1] - line[1] * points[:, 0])
        distance = across / length if length else np.hypot(*points.T)
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
