"""Which pictures are one and the same artwork: exact copies, and copies cropped or compressed a little differently."""

import hashlib

import numpy as np

# Chosen by looking at pairs of real anime faces: up to 0.08 every pair we saw was one drawing; from there on pale
# faces that share no more than their paleness come in.
NEAR = 0.07
BLOCKS = 16
MAX_PAIRS = 20_000_000  # 320 MB


class TooAlike(ValueError):
    """So many pictures are near each other that they cannot be copies."""


def find_families(images: np.ndarray, near: float = NEAR) -> np.ndarray:
    """Number the pictures so that copies of one artwork share a number: int64 (N,), counted from 0.

    `images` is uint8 (N, H, W, 3). Two pictures are copies where the averages over 16×16 blocks of their pixels, on a
    scale from 0 to 1, differ by less than `near` (root mean square); copies of copies belong to the same family.
    `near=0` asks for equality in every byte. Raises `ValueError` for a negative `near`, and `TooAlike` where it joins
    so many pairs that these cannot be copies: pictures put together from the same few parts are alike without being
    copies.
    """
    if not near >= 0:
        raise ValueError(f"got near={near}, expected a distance between pictures, 0 or more, such as {NEAR}")
    return link_families(block_averages(images), near) if near else _exact_copies(images)


def block_averages(images: np.ndarray) -> np.ndarray:
    """Averages over 16×16 blocks (fewer where the pictures are smaller), float32 (N, 16, 16, 3) in [0, 1]."""
    count, height, width = images.shape[:3]
    rows, columns = _block_starts(height), _block_starts(width)
    column_of = np.searchsorted(columns, np.arange(width), side="right") - 1
    into_blocks = np.kron(np.eye(len(columns), dtype=np.float32)[column_of], np.eye(3, dtype=np.float32))
    pixels = np.diff(rows, append=height)[:, None] * np.diff(columns, append=width)  # in each block
    averages = np.empty((count, *pixels.shape, 3), np.float32)
    for start in range(0, count, 512):  # in chunks: the sums of all pictures would fill the memory
        sums = _sum_rows(images[start : start + 512].reshape(-1, height, width * 3), rows) @ into_blocks
        averages[start : start + 512] = sums.reshape(-1, *averages.shape[1:])
    averages /= 255 * pixels[..., None]
    return averages


def link_families(blocks: np.ndarray, near: float) -> np.ndarray:
    """The second half of `find_families`, from `block_averages`; `near` above 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if len(blocks) < 2:
        return np.zeros(len(blocks), np.int64)
    # An average over larger blocks brings pictures nearer, never farther. So pairs are searched with few numbers each,
    # and only those that stay near are compared in full.
    levels = [blocks]
    while all(side % 2 == 0 and side > 4 for side in levels[0].shape[1:3]):
        count, height, width = levels[0].shape[:3]
        levels.insert(0, levels[0].reshape(count, height // 2, 2, width // 2, 2, 3).mean((2, 4)))
    pairs = _pairs(levels[0].reshape(len(blocks), -1), near)
    for level in levels:
        chunks = (pairs[i : i + 4096] for i in range(0, len(pairs), 4096))
        near_ones = [chunk[_rms(level[chunk[:, 0]], level[chunk[:, 1]]) < near] for chunk in chunks]
        pairs = np.concatenate([pairs[:0], *near_ones])
    graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T.astype(np.int32))), shape=(len(blocks), len(blocks)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _pairs(points: np.ndarray, near: float) -> np.ndarray:
    """Pairs of rows whose difference may have an RMS below `near`: int64 (P, 2), none left out, some too many."""
    from scipy.spatial import KDTree
    from sklearn.decomposition import PCA

    radius = near * points.shape[1] ** 0.5
    with np.errstate(invalid="ignore"):  # where all pictures are equal, the share of the variance is 0 / 0
        points = PCA(min(12, *points.shape), svd_solver="full").fit_transform(points)  # a projection, as above
    tree = KDTree(points, leafsize=32)
    sample = points[np.random.default_rng(0).permutation(len(points))[:500]]
    expected = tree.count_neighbors(KDTree(sample), radius) / len(sample) * len(points) / 2
    if expected > MAX_PAIRS:
        raise TooAlike(
            f"got {len(points):,} pictures so alike that near={near} joins some {expected:,.0f} pairs: use near=0"
        )
    return tree.query_pairs(radius, output_type="ndarray")


def _exact_copies(images: np.ndarray) -> np.ndarray:
    digests = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
    return np.unique(np.array(digests, dtype="V16"), return_inverse=True)[1].astype(np.int64)


def _block_starts(side: int) -> np.ndarray:
    count = min(BLOCKS, side)
    return np.arange(count) * side // count


def _sum_rows(images: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums over the rows from each start to the next: uint8 (B, H, W) -> uint32 (B, len(starts), W)."""
    height = images.shape[1]
    if height % len(starts) == 0:  # much faster
        return images.reshape(len(images), len(starts), -1, images.shape[2]).sum(2, dtype=np.uint32)
    return np.add.reduceat(images, starts, axis=1, dtype=np.uint32)


def _rms(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(a - b).mean((1, 2, 3)))
