"""Calibration images: pictures and arrays of every form, and what is wrong with those that cannot be used."""

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DataError
from pipeline.quantize.images import Images, Preparation, Watched

SHAPE = (1, 3, 8, 8)
RANDOM = np.random.default_rng(0)


def picture(path, width=8, height=8, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def opened(source, shape=SHAPE, limit=None, **preparation):
    return Images(source, shape, Preparation(**preparation), limit)


def test_pictures_become_what_the_network_takes(tmp_path):
    pixels = picture(tmp_path / "a.png")
    (image,) = opened(tmp_path, mean=(0.1, 0.2, 0.3), std=(0.5,))
    expected = (pixels / 255.0 - [0.1, 0.2, 0.3]) / 0.5
    np.testing.assert_allclose(image[0], expected.transpose(2, 0, 1), rtol=1e-6)
    (image,) = opened(tmp_path, (1, 8, 8, 3), layout="nhwc")
    np.testing.assert_allclose(image[0], pixels / 255.0, rtol=1e-6)
    (image,) = opened(tmp_path, (1, 1, 8, 8))
    np.testing.assert_allclose(image[0, 0], np.rint(pixels @ [0.299, 0.587, 0.114]) / 255, rtol=1e-6)


@pytest.mark.parametrize("fit", ["letterbox", "crop", "stretch"])
def test_pictures_of_another_size_fit(tmp_path, fit):
    picture(tmp_path / "wide.jpg", 40, 20)
    (image,) = opened(tmp_path, fit=fit)
    assert image.shape == SHAPE
    grey = np.isclose(image[0, :, 0], 114 / 255).all()
    assert grey == (fit == "letterbox")


def test_crop_keeps_the_middle(tmp_path):
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (image,) = opened(tmp_path, fit="crop")
    assert (image == 1.0).all()


def test_arrays_in_every_form(tmp_path):
    stack = RANDOM.standard_normal((4, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "stack.npy", stack)
    np.save(tmp_path / "with_batch.npy", stack[:, None])
    np.save(tmp_path / "one.npy", stack[:1])
    np.save(tmp_path / "bare.npy", stack[0])
    np.savez(tmp_path / "some.npz", a=stack[:1], b=stack[1:3])
    for name, count in [("stack.npy", 4), ("with_batch.npy", 4), ("one.npy", 1), ("bare.npy", 1), ("some.npz", 3)]:
        found = list(opened(tmp_path / name))
        assert len(found) == count
        for image, expected in zip(found, stack, strict=False):
            np.testing.assert_array_equal(image[0], expected)
    assert len(opened(tmp_path)) == 13
    assert len(list(opened(tmp_path, limit=5))) == 5


def test_the_digest_is_of_what_the_network_sees(tmp_path):
    np.save(tmp_path / "a.npy", RANDOM.standard_normal((2, 3, 8, 8)).astype(np.float32))
    (tmp_path / "other").mkdir()
    np.savez(tmp_path / "other" / "b.npz", a=np.load(tmp_path / "a.npy"))

    def digest(source, **preparation):
        watched = Watched(opened(source, **preparation), source)
        assert len(list(watched)) == 2
        return watched.digest()

    assert digest(tmp_path / "a.npy") == digest(tmp_path / "other")
    picture(tmp_path / "other" / "x.png")
    (tmp_path / "other" / "b.npz").unlink()
    picture(tmp_path / "other" / "y.png", seed=1)
    assert digest(tmp_path / "other") != digest(tmp_path / "other", mean=(0.5,))


def array(values):
    return lambda folder: np.save(folder / "a.npy", values)


BROKEN = {
    "an empty folder": (lambda folder: None, "holds no picture and no array"),
    "no image": (lambda folder: (folder / "a.png").write_bytes(b"\x89PNG no"), "is not a picture that can be read"),
    "no array": (lambda folder: (folder / "a.npy").write_bytes(b"\x93NUMPY no"), "is not a numpy file of numbers"),
    "another shape": (
        array(np.zeros((2, 3, 9, 9), np.float32)),
        r"holds \[2, 3, 9, 9\], the model takes \[1, 3, 8, 8\]",
    ),
    "an empty stack": (array(np.zeros((0, 3, 8, 8), np.float32)), "holds a stack of no images"),
    "another type": (array(np.zeros(SHAPE, np.uint8)), "holds uint8, the model takes float32"),
    "NaN": (array(np.full(SHAPE, np.nan, np.float32)), "image 0 holds 192 values that are not finite"),
    "Inf": (array(np.full(SHAPE, np.inf, np.float32)), "image 0 holds 192 values that are not finite"),
    "constant": (
        array(np.full((3, 3, 8, 8), 0.5, np.float32)),
        "each of the 3 calibration images is one value throughout",
    ),
}


COLOUR = np.array([200, 30, 90], np.uint8)


@pytest.mark.parametrize("size", [(8, 8), (12, 8), (8, 12), (9, 31)])
@pytest.mark.parametrize("preparation", [{"fit": "crop"}, {}, {"layout": "nhwc"}])
def test_pictures_of_one_colour_cannot_be_used_whatever_their_border(tmp_path, size, preparation):
    for index in range(2):
        Image.fromarray(np.broadcast_to(COLOUR + index, (*size, 3)).copy()).save(tmp_path / f"{index}.png")
    shape = (1, 8, 8, 3) if "layout" in preparation else SHAPE
    given = opened(tmp_path, shape, **preparation)
    with pytest.raises(DataError, match="each of the 2 calibration images is of one colour"):
        used_of(given)
    ramp = np.linspace(0, 255, size[1]).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[:, None], (*size, 3)).copy()).save(tmp_path / "ramp.png")
    assert used_of(opened(tmp_path, shape, **preparation))[0] == 3


def used(source):
    return used_of(opened(source))


def used_of(images):
    watched = Watched(images, images.source, images.channels)
    return len(list(watched)), watched.digest()


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used_is_named(tmp_path, case):
    spoil, message = BROKEN[case]
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        used(tmp_path)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(DataError, match="is no folder and no file"):
        used(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("shape", "preparation", "message"),
    [((1, 16), {}, "pictures do not fit an input of shape"), ((1, 8, 8, 3), {}, "has 8 channels in layout nchw"),
     (SHAPE, {"mean": (0.1, 0.2)}, "mean has 2"), ((1, 1, 8, 8), {"std": (1.0, 1.0, 1.0)}, "std 3")],
)  # fmt: skip
def test_pictures_that_do_not_suit_the_input(tmp_path, shape, preparation, message):
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=message):
        list(opened(tmp_path, shape, **preparation))
