"""Synthetic pedestrians: who they are, and how one is drawn.

Units: a figure lives in a box of 1 x 2 (width x height), y down; `Canvas` maps it to pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
SKIN: tuple[Colour, ...] = ((241, 205, 178), (214, 164, 126), (160, 110, 75), (96, 66, 48))
HAIR: tuple[Colour, ...] = ((30, 26, 24), (92, 62, 36), (190, 150, 88), (120, 120, 122))
CLOTH: tuple[Colour, ...] = (
    (34, 36, 42), (228, 228, 222), (128, 130, 134), (164, 38, 42),
    (38, 72, 142), (52, 110, 66), (202, 168, 62), (118, 74, 132),
)  # fmt: skip
LOWER: tuple[Colour, ...] = ((34, 36, 42), (56, 74, 112), (126, 112, 88), (150, 152, 156), (84, 48, 40))
SHOES: tuple[Colour, ...] = ((28, 28, 30), (230, 230, 228), (120, 74, 44), (170, 44, 44))
BAG: tuple[Colour, ...] = ((40, 40, 44), (112, 66, 38), (46, 88, 120))
PATTERNS = ("plain", "stripes", "bars", "print", "open", "two-tone")
VIEWS = ("front", "side", "back")


@dataclass(frozen=True)
class Person:
    """The attributes that make an identity. Drawn with replacement from small sets: many look alike."""

    skin: int
    hair: int
    hair_style: str
    upper: int
    accent: int
    pattern: str
    sleeves: str
    lower: int
    lower_kind: str
    shoes: int
    bag: str
    bag_colour: int
    height: float
    breadth: float
    print_shape: int

    @staticmethod
    def draw(rng: np.random.Generator) -> Person:
        def pick(options: tuple[str, ...], p: tuple[float, ...] | None = None) -> str:
            return str(rng.choice(options, p=p))

        upper = int(rng.choice(len(CLOTH), p=(0.38, 0.2, 0.22, 0.03, 0.11, 0.02, 0.02, 0.02)))
        return Person(
            skin=int(rng.choice(len(SKIN), p=(0.45, 0.33, 0.12, 0.1))),
            hair=int(rng.choice(len(HAIR), p=(0.42, 0.36, 0.14, 0.08))),
            hair_style=pick(("short", "long", "cap"), (0.56, 0.38, 0.06)),
            upper=upper,
            accent=int((upper + rng.integers(1, len(CLOTH))) % len(CLOTH)),
            pattern=pick(PATTERNS, (0.66, 0.04, 0.04, 0.12, 0.1, 0.04)),
            sleeves=pick(("long", "short"), (0.6, 0.4)),
            lower=int(rng.choice(len(LOWER), p=(0.44, 0.38, 0.06, 0.08, 0.04))),
            lower_kind=pick(("trousers", "shorts", "skirt"), (0.84, 0.09, 0.07)),
            shoes=int(rng.choice(len(SHOES), p=(0.5, 0.34, 0.11, 0.05))),
            bag=pick(("none", "backpack", "shoulder", "hand"), (0.68, 0.16, 0.1, 0.06)),
            bag_colour=int(rng.integers(len(BAG))),
            height=float(rng.uniform(0.94, 1.02)),
            breadth=float(rng.uniform(0.9, 1.12)),
            print_shape=int(rng.integers(4)),
        )


def shade(colour: Colour, factor: float) -> Colour:
    """A colour in more or less light."""
    r, g, b = (int(min(255, c * factor)) for c in colour)
    return r, g, b


class Canvas:
    """Draws in figure coordinates on an image."""

    def __init__(self, picture: Image.Image, left: float, top: float, size: float) -> None:
        self.pen = ImageDraw.Draw(picture)
        self.left, self.top, self.size = left, top, size

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x * self.size, self.top + y * self.size

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.pen.polygon([self.at(x, y) for x, y in points], fill=colour)

    def limb(self, points: list[tuple[float, float]], thickness: float, colour: Colour) -> None:
        """A line of joints with round ends."""
        width = max(1, round(thickness * self.size))
        self.pen.line([self.at(x, y) for x, y in points], fill=colour, width=width, joint="curve")
        for x, y in (points[0], points[-1]):
            self.ellipse(x, y, thickness / 2, thickness / 2, colour)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        (left, top), (right, bottom) = self.at(x - rx, y - ry), self.at(x + rx, y + ry)
        self.pen.ellipse((left, top, right, bottom), fill=colour)


def draw_person(canvas: Canvas, person: Person, view: str, rng: np.random.Generator) -> None:
    """One figure in a box of 1 x 2; pose and light on the body come from `rng`."""
    light = float(rng.uniform(0.85, 1.12))
    skin, hair = shade(SKIN[person.skin], light), shade(HAIR[person.hair], light)
    upper, accent = shade(CLOTH[person.upper], light), shade(CLOTH[person.accent], light)
    facing = float(rng.choice((-1.0, 1.0)))
    half = 0.2 * person.breadth * (0.62 if view == "side" else 1.0)  # half the shoulder width
    top = 2.0 - 1.9 * person.height
    shoulder, hip = top + 0.36, top + 0.92
    stride = float(rng.uniform(0.02, 0.2)) * (1.0 if view == "side" else 0.45)
    swing = float(rng.uniform(-0.16, 0.16))
    bag = shade(BAG[person.bag_colour], light)
    if person.bag == "backpack" and view == "front":
        canvas.polygon(
            [
                (0.5 - half * 0.9, shoulder),
                (0.5 + half * 0.9, shoulder),
                (0.5 + half * 0.8, hip - 0.1),
                (0.5 - half * 0.8, hip - 0.1),
            ],
            shade(bag, 0.8),
        )
    _legs(canvas, person, half, hip, stride, light, skin)
    sleeve = upper if person.sleeves == "long" else skin
    for side in (-1, 1) if view != "side" else (1,):
        x = 0.5 + side * half * 1.06 if view != "side" else 0.5 - swing * 0.4
        elbow = (x + side * 0.05 + swing * 0.4, shoulder + 0.28)
        hand = (x + side * 0.03 + swing, shoulder + 0.54)
        if view == "side":
            continue
        canvas.limb([(x, shoulder + 0.05), elbow, hand], 0.1, shade(sleeve, 0.88))
        canvas.ellipse(*hand, 0.05, 0.05, skin)
    torso = [
        (0.5 - half, shoulder),
        (0.5 + half, shoulder),
        (0.5 + half * 0.86, hip + 0.04),
        (0.5 - half * 0.86, hip + 0.04),
    ]
    canvas.polygon(torso, upper)
    canvas.ellipse(0.5, shoulder + 0.02, half, 0.06, upper)
    _pattern(canvas, person, view, half, shoulder, hip, accent)
    if view == "side":
        elbow, hand = (0.5 - swing * 0.5, shoulder + 0.3), (0.5 + facing * 0.06 + swing, shoulder + 0.56)
        canvas.limb([(0.5, shoulder + 0.06), elbow, hand], 0.11, shade(sleeve, 0.84))
        canvas.ellipse(*hand, 0.05, 0.05, skin)
    _bag(canvas, person, view, half, shoulder, hip, facing, bag)
    _head(canvas, person, view, top, facing, skin, hair)


def _legs(canvas: Canvas, person: Person, half: float, hip: float, stride: float, light: float, skin: Colour) -> None:
    colour, shoe = shade(LOWER[person.lower], light), shade(SHOES[person.shoes], light)
    knee, ankle = hip + (1.96 - hip) * 0.5, 1.93
    for side in (-1, 1):
        x_hip, x_knee, x_foot = (
            0.5 + side * half * 0.42,
            0.5 + side * (half * 0.42 + stride * 0.6),
            0.5 + side * (half * 0.4 + stride),
        )
        tone = colour if side > 0 else shade(colour, 0.86)
        bare = skin if side > 0 else shade(skin, 0.86)
        thick = 0.17 * person.breadth
        lower = bare if person.lower_kind != "trousers" else tone
        canvas.limb([(x_hip, hip), (x_knee, knee), (x_foot, ankle)], thick * 0.78, lower)
        if person.lower_kind == "shorts" or person.lower_kind == "trousers":
            canvas.limb([(x_hip, hip), (x_knee, knee)], thick, tone)
        canvas.ellipse(x_foot + 0.01, ankle + 0.03, 0.085, 0.045, shoe)
    if person.lower_kind == "skirt":
        canvas.polygon(
            [
                (0.5 - half * 0.85, hip),
                (0.5 + half * 0.85, hip),
                (0.5 + half * 1.25 + stride * 0.4, knee + 0.02),
                (0.5 - half * 1.25 - stride * 0.4, knee + 0.02),
            ],
            colour,
        )


def _pattern(
    canvas: Canvas, person: Person, view: str, half: float, shoulder: float, hip: float, accent: Colour
) -> None:
    high = hip - shoulder
    if person.pattern == "stripes":
        for k in range(4):
            y = shoulder + high * (0.12 + 0.24 * k)
            canvas.polygon(
                [
                    (0.5 - half * 0.97, y),
                    (0.5 + half * 0.97, y),
                    (0.5 + half * 0.95, y + 0.05),
                    (0.5 - half * 0.95, y + 0.05),
                ],
                accent,
            )
    elif person.pattern == "bars":
        for k in (-1, 0, 1):
            x = 0.5 + k * half * 0.6
            canvas.polygon([(x - 0.022, shoulder), (x + 0.022, shoulder), (x + 0.02, hip), (x - 0.02, hip)], accent)
    elif person.pattern == "two-tone":
        y = shoulder + high * 0.5
        canvas.polygon(
            [
                (0.5 - half * 0.94, y),
                (0.5 + half * 0.94, y),
                (0.5 + half * 0.86, hip + 0.04),
                (0.5 - half * 0.86, hip + 0.04),
            ],
            accent,
        )
    elif view == "front" and person.pattern == "print":
        y, r = shoulder + high * 0.42, half * 0.5
        shapes = (
            [(0.5 - r, y - r), (0.5 + r, y - r), (0.5 + r, y + r), (0.5 - r, y + r)],
            [(0.5, y - r * 1.2), (0.5 + r, y + r), (0.5 - r, y + r)],
            [(0.5 - r, y - r * 0.4), (0.5 + r, y - r * 0.4), (0.5 + r, y + r * 0.4), (0.5 - r, y + r * 0.4)],
            [(0.5, y - r), (0.5 + r, y), (0.5, y + r), (0.5 - r, y)],
        )
        canvas.polygon(shapes[person.print_shape], accent)
    elif view == "front" and person.pattern == "open":
        canvas.polygon(
            [
                (0.5 - half * 0.3, shoulder),
                (0.5 + half * 0.3, shoulder),
                (0.5 + half * 0.22, hip),
                (0.5 - half * 0.22, hip),
            ],
            accent,
        )


def _bag(
    canvas: Canvas, person: Person, view: str, half: float, shoulder: float, hip: float, facing: float, bag: Colour
) -> None:
    if person.bag == "backpack":
        if view == "back":
            canvas.polygon(
                [
                    (0.5 - half * 0.72, shoulder + 0.03),
                    (0.5 + half * 0.72, shoulder + 0.03),
                    (0.5 + half * 0.78, hip - 0.1),
                    (0.5 - half * 0.78, hip - 0.1),
                ],
                bag,
            )
        elif view == "side":
            x = 0.5 - facing * half * 1.35
            canvas.polygon(
                [
                    (x - 0.1, shoulder + 0.03),
                    (x + 0.1, shoulder + 0.03),
                    (x + 0.11, hip - 0.12),
                    (x - 0.11, hip - 0.12),
                ],
                bag,
            )
        else:
            for side in (-1, 1):
                canvas.limb(
                    [(0.5 + side * half * 0.6, shoulder), (0.5 + side * half * 0.66, shoulder + 0.32)], 0.035, bag
                )
    elif person.bag == "shoulder":
        canvas.limb([(0.5 - half * 0.8, shoulder), (0.5 + half * 0.9, hip)], 0.03, bag)
        canvas.polygon(
            [
                (0.5 + half * 0.6, hip - 0.06),
                (0.5 + half * 1.5, hip - 0.06),
                (0.5 + half * 1.45, hip + 0.16),
                (0.5 + half * 0.65, hip + 0.16),
            ],
            bag,
        )
    elif person.bag == "hand":
        x = 0.5 + half * 1.35
        canvas.polygon(
            [(x - 0.09, hip + 0.06), (x + 0.09, hip + 0.06), (x + 0.11, hip + 0.28), (x - 0.11, hip + 0.28)], bag
        )


def _head(canvas: Canvas, person: Person, view: str, top: float, facing: float, skin: Colour, hair: Colour) -> None:
    y = top + 0.17
    canvas.limb([(0.5, y + 0.1), (0.5, y + 0.2)], 0.1, shade(skin, 0.85))
    if person.hair_style == "long" and view != "back":
        canvas.polygon([(0.37, y - 0.05), (0.63, y - 0.05), (0.65, y + 0.26), (0.35, y + 0.26)], hair)
    canvas.ellipse(0.5, y, 0.11, 0.15, skin)
    if view == "back":
        canvas.ellipse(0.5, y - 0.02, 0.12, 0.15, hair)
        if person.hair_style == "long":
            canvas.polygon([(0.38, y - 0.02), (0.62, y - 0.02), (0.64, y + 0.3), (0.36, y + 0.3)], hair)
    else:
        shift = 0.03 * facing if view == "side" else 0.0
        canvas.ellipse(0.5 - shift, y - 0.085, 0.12, 0.085, hair)
        if view == "front":
            for side in (-1, 1):
                canvas.ellipse(0.5 + side * 0.045, y + 0.005, 0.014, 0.012, shade(skin, 0.35))
    if person.hair_style == "cap":
        cap = CLOTH[person.accent]
        canvas.ellipse(0.5, y - 0.08, 0.125, 0.09, cap)
        if view != "back":
            canvas.polygon(
                [
                    (0.42, y - 0.07),
                    (0.62 if facing > 0 else 0.58, y - 0.07),
                    (0.66 if facing > 0 else 0.58, y - 0.035),
                    (0.34 if facing < 0 else 0.42, y - 0.035),
                ],
                shade(cap, 0.8),
            )
