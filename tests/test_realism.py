"""Fréchet distance, KID, precision and recall: by hand, by other formulas, and as published code has them."""

import pathlib

import numpy as np
import pytest
import scipy.linalg

from tfi2i.config import UserError
from tfi2i.metrics import realism
from tools.golden.made_weights import hashed

GOLDEN = pathlib.Path(__file__).parent / "golden" / "metrics_distances.npz"


def drawn(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def golden(name):
    n, m, d = {"many": (96, 80, 24), "few": (20, 16, 40)}[name]
    return hashed(1, (n, d)), 1.5 * hashed(2, (m, d)) + 0.1


# ---------------------------------------------------------------------------------------------------------- moments


def test_moments_in_parts_are_those_of_the_whole():
    x = drawn(50, 7) + 1000
    moments = realism.Moments()
    for part in (x[:1], x[1:20], x[20:]):
        moments.update(part)
    assert moments.n == 50
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------------------- Fréchet distance


@pytest.mark.parametrize("n", [5, 40])
def test_equal_sets_have_no_distance(n):
    x = drawn(n, 12)
    assert realism.frechet_distance(x, x) < 1e-10
    assert realism.frechet_distance(x, x[::-1]) < 1e-10


@pytest.mark.parametrize("n", [5, 40])
def test_a_shift_costs_its_squared_length(n):
    x = drawn(n, 12)
    assert realism.frechet_distance(x, x + 2) == pytest.approx(12 * 4, rel=1e-12)


@pytest.mark.parametrize("n", [5, 40])
def test_a_stretch_by_hand(n):
    """Deviation 3 σ against σ in every direction: tr(Σ)(1 + 9 - 6)."""
    x = drawn(n, 12) - drawn(n, 12).mean(0)
    trace = np.trace(np.cov(x, rowvar=False))
    assert realism.frechet_distance(x, 3 * x) == pytest.approx(4 * trace, rel=1e-10)


def test_commuting_covariances_by_hand():
    """Independent coordinates: Σ (σ - σ')² + Σ (μ - μ')²."""
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3) / 2  # sample covariance 1, exactly
    x, y = signs * [1, 2] + [0, 1], signs * [4, 0.5] + [2, 1]
    assert realism.frechet_distance(x, y) == pytest.approx(9 + 1.5**2 + 4, rel=1e-12)


@pytest.mark.parametrize("n, m, d", [(60, 80, 20), (30, 25, 24)])
def test_scipys_matrix_square_root_agrees(n, m, d):
    x, y = drawn(n, d), drawn(m, d, 1) @ drawn(d, d, 2)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(a @ b).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * root)
    assert realism.frechet_distance(x, y) == pytest.approx(expected, rel=1e-8)
    assert realism.frechet_distance(realism.Moments(x), realism.Moments(y)) == pytest.approx(expected, rel=1e-8)


def test_fewer_images_than_features_by_two_formulas():
    """Features and their covariance, whose missing rank is rounding, give the same."""
    x, y = drawn(20, 64), drawn(15, 64, 1) + 0.1
    expected = realism.frechet_distance(x, y)
    assert realism.frechet_distance(realism.Moments(x), realism.Moments(y)) == pytest.approx(expected, rel=1e-9)
    # Nuclear norm by eigenvalues of the small product.
    a, b = (z - z.mean(0) for z in (x, y))
    product = a @ b.T @ b @ a.T / (19 * 14)
    root = np.sqrt(np.linalg.eigvalsh(product)[-14:]).sum()
    trace = np.square(a).sum() / 19 + np.square(b).sum() / 14
    assert np.square(x.mean(0) - y.mean(0)).sum() + trace - 2 * root == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name, rel", [("many", 1e-6), ("few", 1e-5)])
def test_published_codes_agree(name, rel):
    """For n < d their covariance product has a null space of rounding, whose square roots add up to a few 1e-6."""
    found = realism.frechet_distance(*golden(name))
    with np.load(GOLDEN) as file:
        assert found == pytest.approx(float(file[f"{name}/frechet/torch_fidelity"]), rel=rel)
        if name == "many":  # pytorch-fid adds 1e-6 to the diagonal of what is singular
            assert found == pytest.approx(float(file[f"{name}/frechet/pytorch_fid"]), rel=rel)


def test_the_jackknife_tells_the_error():
    """Of the mean's square alone, with a known answer: one coordinate, shift s: deviation 2 s σ √(1/n + 1/m)."""
    errors, found = [], []
    for seed in range(40):
        x, y = drawn(200, 1, seed), drawn(200, 1, seed + 1000) + 3
        errors.append(realism.frechet_error(x, y))
        found.append(realism.frechet_distance(x, y))
    assert np.mean(errors) == pytest.approx(6 * np.sqrt(0.01), rel=0.15)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.3)
    assert realism.frechet_error(drawn(19, 2), drawn(30, 2)) is None


def test_one_image_is_refused():
    with pytest.raises(UserError, match="needs two images"):
        realism.frechet_distance(drawn(1, 3), drawn(5, 3))


# -------------------------------------------------------------------------------------------------------------- KID


def test_kid_of_two_and_two_by_hand():
    """x: (1, 0), (0, 1); y: (1, 1), (2, 0). Kernel ((x·y)/2 + 1)³."""
    x, y = np.eye(2), np.array([[1.0, 1], [2, 0]])
    between = np.mean([1.5**3, 2**3, 1.5**3, 1])
    assert realism.kernel_distance(x, y, 2, subsets=1) == pytest.approx(1 + 2**3 - 2 * between)


def test_kid_is_unbiased():
    """Both sets of one distribution: 0 within the error of the mean; the biased estimate would be far off."""
    found = [realism.kernel_distance(drawn(30, 8, s), drawn(30, 8, s + 500), 30, 1)[0] for s in range(200)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(200)


def test_kid_as_published():
    with np.load(GOLDEN) as file:
        for name in ("many", "few"):
            found = realism.kernel_distance(*golden(name), subset_size=12, subsets=10)
            np.testing.assert_allclose([found.mean(), found.std()], file[f"{name}/kid"], rtol=1e-9)


def test_subsets_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="--kid_subset_size=6: expected 2 to 5"):
        realism.kernel_distance(drawn(5, 3), drawn(9, 3), 6)
    assert [realism.subset_size(*p) for p in ((1000, 500), (176, 300), (3, 9))] == [100, 88, 2]


# ----------------------------------------------------------------------------------------------- precision and recall


def test_precision_and_recall_by_hand():
    """Real points 0 … 4; each has its nearest neighbour at 1. Fakes at 2.5 and 9: one of them is inside."""
    real, fake = np.arange(5.0)[:, None], np.array([[2.5], [9.0]])
    precision, recall = realism.precision_recall(real, fake, neighbours=1)
    # The fakes are 6.5 apart: every real point is inside.
    assert (precision, recall) == (0.5, 1.0)
    assert realism.precision_recall(real, np.full((4, 1), 2.0), 3) == (1.0, 0.2)  # collapsed onto one image


def test_precision_and_recall_as_published(monkeypatch):
    with np.load(GOLDEN) as file:
        for name in ("many", "few"):
            real, fake = golden(name)
            assert realism.precision_recall(real, fake) == pytest.approx(file[f"{name}/precision_recall"].tolist())
            monkeypatch.setattr(realism, "_ROWS", 7)
            assert realism.precision_recall(real, fake) == pytest.approx(file[f"{name}/precision_recall"].tolist())


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match="more than 3 images"):
        realism.precision_recall(drawn(3, 2), drawn(9, 2))
