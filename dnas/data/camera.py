"""How a camera sees a synthetic pedestrian: place, light, occluders, and the photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from dnas.data.pedestrian import VIEWS, Canvas, Colour, Person, draw_person, shade

SCALE = 3
"""Pictures are drawn this many times larger and then reduced, which smooths edges."""


@dataclass(frozen=True)
class Camera:
    """How one camera sees: background, light, usual viewpoint, sharpness, compression."""

    wall: Colour
    floor: Colour
    horizon: float
    texture: str
    gain: float
    temperature: float
    gamma: float
    view: str
    blur: float
    quality: int

    @staticmethod
    def draw(rng: np.random.Generator, number: int) -> Camera:
        grey = rng.integers(70, 200)
        tint = rng.integers(-28, 28, 3)
        floor = np.clip(grey - 35 + rng.integers(-22, 22, 3), 30, 230)
        wall = np.clip(grey + tint, 30, 235)
        return Camera(
            wall=_colour(wall),
            floor=_colour(floor),
            horizon=float(rng.uniform(0.25, 0.62)),
            texture=str(rng.choice(("bricks", "windows", "trees", "plain"))),
            gain=float(rng.uniform(0.5, 1.3)),
            temperature=float(rng.uniform(-0.3, 0.3)),
            gamma=float(rng.uniform(0.7, 1.5)),
            view=VIEWS[number % 3],
            blur=float(rng.uniform(0.0, 1.2)),
            quality=int(rng.integers(35, 90)),
        )


def _colour(values: NDArray[np.int64]) -> Colour:
    r, g, b = (int(v) for v in values)
    return r, g, b


def draw_background(camera: Camera, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """The camera's place, seen at a random offset."""
    picture = Image.new("RGB", (width, height), camera.wall)
    pen = ImageDraw.Draw(picture)
    horizon = round(height * (camera.horizon + rng.uniform(-0.04, 0.04)))
    offset = int(rng.integers(0, 48))
    if camera.texture == "bricks":
        for y in range(0, horizon, 18):
            pen.line((0, y, width, y), fill=shade(camera.wall, 0.85), width=2)
            for x in range(-offset + (y // 18 % 2) * 20, width, 40):
                pen.line((x, y, x, y + 18), fill=shade(camera.wall, 0.85), width=2)
    elif camera.texture == "windows":
        for x in range(-offset, width, 70):
            pen.rectangle((x, 8, x + 40, max(9, horizon - 24)), fill=shade(camera.wall, 0.6))
    elif camera.texture == "trees":
        for x in range(-offset, width, 60):
            pen.rectangle((x + 16, 0, x + 30, horizon), fill=(70, 54, 40))
            pen.ellipse((x - 14, -50, x + 60, max(0, horizon // 2)), fill=(62, 92, 54))
    pen.rectangle((0, horizon, width, height), fill=camera.floor)
    for x in range(-offset, width, 90):
        pen.line((x, height, x + 40, horizon), fill=shade(camera.floor, 0.9), width=3)
    return picture


def draw_occluder(picture: Image.Image, rng: np.random.Generator, strong: bool) -> None:
    """Something in front: a pole, a car, or another person. `strong` hides about 30 to 60 %."""
    width, height = picture.size
    pen = ImageDraw.Draw(picture)
    kind = str(rng.choice(("pole", "car", "person"), p=(0.3, 0.4, 0.3)))
    tone = int(rng.integers(50, 200))
    colour = _colour(np.clip(tone + rng.integers(-40, 40, 3), 20, 235))
    if kind == "pole":
        wide = rng.uniform(0.26, 0.44) if strong else rng.uniform(0.1, 0.2)
        x = rng.uniform(0.3, 0.7) * width
        pen.rectangle((x - wide * width / 2, 0, x + wide * width / 2, height), fill=colour)
    elif kind == "car":
        y = height * (rng.uniform(0.42, 0.58) if strong else rng.uniform(0.66, 0.8))
        start = float(rng.choice((-0.25, 0.0, 0.25))) * width
        pen.rectangle((start, y + height * 0.1, start + width * 1.1, height), fill=colour)
        pen.polygon(
            [
                (start + width * 0.1, y + height * 0.1),
                (start + width * 0.3, y),
                (start + width * 0.9, y),
                (start + width, y + height * 0.1),
            ],
            fill=shade(colour, 0.6),
        )
    else:
        size = height * (rng.uniform(0.46, 0.56) if strong else rng.uniform(0.34, 0.44))
        aside = rng.uniform(0.14, 0.26) if strong else rng.uniform(0.34, 0.46)
        x = width * (0.5 + aside * float(rng.choice((-1.0, 1.0))))
        draw_person(
            Canvas(picture, x - size / 2, height - 1.94 * size, size), Person.draw(rng), str(rng.choice(VIEWS)), rng
        )


def photograph(
    person: Person, camera: Camera, rng: np.random.Generator, height: int, width: int, occlusion: str
) -> Image.Image:
    """One image of a person by a camera.

    Args:
        occlusion: 'some' (weak occluders in 20 % of the images), 'strong' (always), 'none'.
    """
    big_w, big_h = width * SCALE, height * SCALE
    picture = draw_background(camera, big_w, big_h, rng)
    view = camera.view if rng.random() < 0.7 else str(rng.choice(VIEWS))
    size = big_h / 2 * rng.uniform(0.82, 1.08)  # crop error: scale and shift
    left = big_w / 2 - size / 2 + big_w * rng.uniform(-0.14, 0.14)
    top = big_h - 2 * size + big_h * rng.uniform(-0.04, 0.07)
    draw_person(Canvas(picture, left, top, size), person, view, rng)
    if occlusion == "strong" or (occlusion == "some" and rng.random() < 0.2):
        draw_occluder(picture, rng, strong=occlusion == "strong")
    picture = picture.reduce(SCALE)
    if camera.blur > 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(camera.blur))
    tint = camera.temperature + rng.uniform(-0.08, 0.08)
    gains = np.array([1 + tint, 1.0, 1 - tint]) * camera.gain * rng.uniform(0.75, 1.25)
    shadow = 1 + rng.uniform(-0.35, 0.35) * np.linspace(-1, 1, height)[:, None, None]  # light from above or below
    pixels = (np.asarray(picture, np.float64) / 255) ** camera.gamma * gains * shadow
    pixels = pixels + rng.normal(0, 0.03, pixels.shape)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
