"""How close a set of translations is to a set of real images, by their features. Pure numpy, float64.

Features are float [n, d], one row an image, from `tfi2i.metrics.features`. Which network they come from decides what
the numbers mean: "FID" and "KID" without more are those of the Inception of 2015.
"""

import numpy as np

from tfi2i.config import UserError

GROUPS = 10  # of the jackknife
_ROWS = 1024  # of a matrix of distances or kernels at a time


class Moments:
    """Mean and covariance of features that come in parts; memory for one d × d matrix, however many there are.

    Parts are merged as Chan, Golub and LeVeque do (1979), so nothing is lost where the mean is large.

    Attributes:
        n: rows so far.
        mean: [d].
        scatter: [d, d], Σ (x - mean) (x - mean)ᵀ.
    """

    def __init__(self, features=None):
        self.n, self.mean, self.scatter = 0, 0.0, 0.0
        for start in range(0, 0 if features is None else len(features), 4096):
            self.update(features[start : start + 4096])

    def update(self, features):
        """Takes in more rows, [n, d]."""
        x = np.asarray(features, np.float64)
        n, mean = self.n + len(x), x.mean(0)
        centred, shift = x - mean, mean - self.mean
        self.scatter = self.scatter + centred.T @ centred + np.outer(shift, shift) * (self.n * len(x) / n)
        self.mean = self.mean + shift * (len(x) / n)
        self.n = n

    @property
    def covariance(self):
        """[d, d], divided by n - 1."""
        return self.scatter / (self.n - 1)


def frechet_distance(x, y):
    """Squared Fréchet distance of two normal distributions: |μ - μ'|² + tr(Σ + Σ' - 2 (Σ Σ')^½).

    Heusel et al., arXiv 1706.08500. With Σ = FᵀF the last trace is the sum of the singular values of F F'ᵀ, which no
    rounding turns complex or negative. For n ≤ d, F is the centred features themselves: nothing of the rank d - n + 1
    that is missing enters, and the result is exact to about 1e-10 of the traces. For n > d, F comes from the
    eigenvalues of Σ.

    The estimate is biased: the fewer images, the larger it is (by about tr Σ / n and more where n < d), so only numbers
    of equal n may be compared.

    Args:
        x, y: features [n, d] and [m, d], at least two rows each, or `Moments`.

    Returns:
        float, 0 for equal sets.
    """
    (mean_x, factor_x), (mean_y, factor_y) = _mean_and_factor(x), _mean_and_factor(y)
    together = np.linalg.svd(factor_x @ factor_y.T, compute_uv=False).sum()
    distance = np.square(mean_x - mean_y).sum() + np.square(factor_x).sum() + np.square(factor_y).sum() - 2 * together
    return max(float(distance), 0.0)


def frechet_error(x, y, on_group=lambda done: None):
    """Standard error of `frechet_distance` by the jackknife: a tenth of either set is left out, ten times.

    Args:
        x, y: features [n, d] and [m, d].
        on_group: called with the number of those that are done.

    Returns:
        float, or None below 20 rows.
    """
    if min(len(x), len(y)) < 2 * GROUPS:
        return None
    distances = np.zeros(GROUPS)
    for k in range(GROUPS):
        distances[k] = frechet_distance(*(features[np.arange(len(features)) % GROUPS != k] for features in (x, y)))
        on_group(k + 1)
    return float(np.sqrt((GROUPS - 1) * np.square(distances - distances.mean()).mean()))


def _mean_and_factor(x):
    """Mean [d] and F [r, d] with FᵀF = covariance."""
    if not isinstance(x, Moments):
        if len(x) < 2:
            raise UserError(f"a covariance needs two images at least, here are {len(x)}")
        if len(x) <= x.shape[1]:
            x = np.asarray(x, np.float64)
            mean = x.mean(0)
            return mean, (x - mean) / np.sqrt(len(x) - 1)
        x = Moments(x)
    values, vectors = np.linalg.eigh(x.covariance)
    # At most n - 1 of the eigenvalues are not rounding.
    rank = min(x.n - 1, len(values))
    return x.mean, np.sqrt(np.maximum(values[-rank:], 0))[:, None] * vectors[:, -rank:].T


def kernel_distance(x, y, subset_size, subsets=100, seed=2020):
    """Squared maximum mean discrepancy, unbiased, with the kernel (x·y / d + 1)³: Bińkowski et al., arXiv 1801.01401.

    It may be a little below 0 for equal distributions. Subsets are drawn as torch-fidelity draws them.

    Args:
        x, y: features [n, d] and [m, d].
        subset_size: rows of each subset, drawn without repetition, from each set.
        subsets: how many are drawn.
        seed: of the draws.

    Returns:
        float64 [subsets], one value each; their mean is the distance, their standard deviation what is published as ±.

    Raises:
        UserError: a subset is larger than a set, or of one image.
    """
    if not 2 <= subset_size <= min(len(x), len(y)):
        raise UserError(
            f"--kid_subset_size={subset_size}: expected 2 to {min(len(x), len(y))}, the images of the smaller set"
        )
    x, y = (np.asarray(features, np.float64) for features in (x, y))
    draw, m = np.random.RandomState(seed), subset_size
    distances = np.zeros(subsets)
    for i in range(subsets):
        a = x[draw.choice(len(x), m, replace=False)]
        b = y[draw.choice(len(y), m, replace=False)]
        within = sum(k.sum() - np.trace(k) for k in (_kernel(a, a), _kernel(b, b)))
        distances[i] = within / (m * (m - 1)) - 2 * _kernel(a, b).mean()
    return distances


def subset_size(n, m):
    """The subsets' size where none is asked for: 100, but at most half of the smaller set.

    Subsets that are nearly the whole set would agree with each other and feign certainty.
    """
    return max(2, min(100, min(n, m) // 2))


def _kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


# Of Kynkäänniemi et al.'s precision and recall.
NEIGHBOURS = 3


def precision_recall(real, fake, neighbours=NEIGHBOURS):
    """Improved precision and recall: Kynkäänniemi et al., arXiv 1904.06991.

    Precision is the share of fake images within the distance of a real image to its k-th nearest real neighbour, any
    of them; recall is the same the other way round. Low recall at high precision is mode collapse.

    Args:
        real, fake: features [n, d] and [m, d], more than `neighbours` rows each.
        neighbours: k.

    Returns:
        (precision, recall), 0 to 1.

    Raises:
        UserError: too few images.
    """
    if min(len(real), len(fake)) <= neighbours:
        raise UserError(f"precision and recall need more than {neighbours} images, here are {len(real)}, {len(fake)}")
    real, fake = (np.asarray(x, np.float64) for x in (real, fake))

    def radii(x):
        rows = [np.partition(_squared_distances(part, x), neighbours, axis=1) for part in _parts(x)]
        return np.concatenate([r[:, neighbours] for r in rows])  # the nearest is the image itself

    def covered(x, centres, radius):
        return np.concatenate([(_squared_distances(part, centres) <= radius).any(1) for part in _parts(x)]).mean()

    return float(covered(fake, real, radii(real))), float(covered(real, fake, radii(fake)))


def _parts(x):
    return (x[start : start + _ROWS] for start in range(0, len(x), _ROWS))


def _squared_distances(x, y):
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0)
