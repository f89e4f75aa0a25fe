"""The phantom's physics, the reading list's statistics, the trained models."""

from __future__ import annotations

import numpy as np
import pytest
from openinfer.workloads import registry
from openinfer.workloads.imaging.phantom import SIZE, Ellipse, mask_of, pixel_centres, reconstruct, slices
from openinfer.workloads.imaging.reading import Reading
from openinfer.workloads.imaging.traffic import REGIMES
from scipy.optimize import minimize

import openinfer
from openinfer.errors import WorkloadError
from openinfer.frontend.float64 import discrepancy, reference, widen


@pytest.fixture
def seed():
    drawn = int(np.random.SeedSequence().entropy) % 2**32
    print(f"seed = {drawn}")
    return drawn


def test_reconstruction_gives_an_ellipse_back(seed):
    g = np.random.default_rng(seed)
    a, b, value = g.uniform(0.25, 0.5), g.uniform(0.2, 0.4), g.uniform(0.3, 2)
    whole = Ellipse(g.uniform(-0.3, 0.3), g.uniform(-0.3, 0.3), a, b, g.uniform(0, np.pi), value)
    found = reconstruct(whole.line_integrals()[None])[0] / value
    x, y = pixel_centres()
    core = Ellipse(whole.x, whole.y, a - 0.06, b - 0.06, whole.angle, 1.0).inside(x, y)
    outside = ~Ellipse(whole.x, whole.y, a + 0.06, b + 0.06, whole.angle, 1.0).inside(x, y)
    assert abs(found[core].mean() - 1) < 0.005 and found[core].std() < 0.03
    assert abs(found[outside].mean()) < 0.005 and found[outside].std() < 0.03


def test_line_integrals_hold_the_mass(seed):
    g = np.random.default_rng(seed)
    one = Ellipse(g.uniform(-0.3, 0.3), g.uniform(-0.3, 0.3), g.uniform(0.2, 0.5), g.uniform(0.2, 0.5), g.uniform(0, np.pi), 1.5)
    spacing = 2 * np.sqrt(2) / (one.line_integrals().shape[1] - 1)
    np.testing.assert_allclose(one.line_integrals().sum(1) * spacing, 1.5 * np.pi * one.a * one.b, rtol=0.01)


def test_a_slice_depends_on_its_seed_and_index_alone(seed):
    together, alone = slices(seed, 3, 4), slices(seed, 5, 1)[0]
    assert together[2].image.tobytes() == alone.image.tobytes() and (together[2].mask == alone.mask).all()
    assert together[0].image.tobytes() != together[1].image.tobytes()


def test_masks_are_the_lesions(seed):
    drawn = slices(seed, 0, 24)
    assert any(one.lesions for one in drawn) and not all(one.lesions for one in drawn)
    for one in drawn:
        assert one.mask.shape == one.image.shape == (SIZE, SIZE)
        assert bool(one.lesions) == one.mask.any()
        assert (one.mask == mask_of(one.lesions)).all()
        area = sum(np.pi * lesion.a * lesion.b for lesion in one.lesions) * SIZE * SIZE / 4
        assert one.mask.sum() <= 1.3 * area + 4


def test_reading_parameters_are_recovered_by_maximum_likelihood(seed):
    true = REGIMES["emergency"]
    times, emergency = true.simulate(1_000_000, seed)

    def cost(p):
        return -Reading(*np.exp(p)).log_likelihood(times, emergency)

    found = np.exp(minimize(cost, np.log([1e-3, 1.0, 10.0]), method="Nelder-Mead", options={"maxiter": 400, "xatol": 1e-4}).x)
    np.testing.assert_allclose(found, [true.pace_s, true.shape, true.emergency_rate], rtol=0.05)


def test_the_list_alone_has_no_emergencies(seed):
    times, emergency = REGIMES["list"].simulate(5000, seed)
    assert not emergency.any() and (np.diff(times) > 0).all()
    assert times[-1] / 5000 == pytest.approx(REGIMES["list"].pace_s, rel=0.05)


@pytest.mark.parametrize("name", ["lesion_classifier", "lesion_unet"])
def test_models_agree_with_float64_and_nothing_falls_back(name, seed):
    import onnx

    imaging = registry.get("imaging")
    images = np.stack([one.image[None] for one in slices(seed, 0, 3)])
    with openinfer.load(imaging.model_path(name)) as engine:
        (found,) = engine.run({"image": images}).values()
        alone = [next(iter(engine.run({"image": images[i : i + 1]}).values())) for i in range(3)]
        assert not engine.statistics().fallback
    assert b"".join(one.tobytes() for one in alone) == found.tobytes()
    (expected,) = reference(widen(onnx.load(imaging.model_path(name))), {"image": images}).values()
    assert discrepancy(found, expected) <= imaging.models[name].tolerance


def test_trained_models_keep_their_held_out_accuracy():
    imaging = registry.get("imaging")
    drawn = slices(imaging.splits["held_out"][0], 0, 200)
    images = np.stack([one.image[None] for one in drawn])
    right = openinfer.load(imaging.model_path()).run({"image": images})["probabilities"].argmax(1) == [bool(one.lesions) for one in drawn]
    assert right.mean() >= imaging.models["lesion_classifier"].accuracy_interval[0] - 0.03
    marked = openinfer.load(imaging.model_path("lesion_unet")).run({"image": images[:60]})["lesion"][:, 0] > 0.5
    masks = np.stack([one.mask for one in drawn[:60]])
    dice = 2 * (marked & masks).sum() / (marked.sum() + masks.sum())
    assert dice >= imaging.models["lesion_unet"].accuracy_interval[0] - 0.05


def test_the_export_holds_the_truth(tmp_path):
    written = registry.get("imaging").export(tmp_path, 3)
    truth = np.load(tmp_path / "held_out-emergency-1202_truth.npz")
    assert truth["mask"].shape == (3, SIZE, SIZE) and truth["emergency"].shape == (3,)
    assert len(written) == 2 + 2 * 8


def test_an_unknown_regime_is_named():
    imaging = registry.get("imaging")
    with pytest.raises(WorkloadError, match="did you mean 'list'"):
        imaging.generate("lists", 1, 1)
