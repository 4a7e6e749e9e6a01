"""A look at a data set: a row of images for each of some identities. Usage: tools/contact_sheet.py DATA OUT.png"""

from __future__ import annotations

import argparse

import numpy as np
from PIL import Image

from dnas.data.layouts import load_data


def main() -> None:
    parser = argparse.ArgumentParser(description="A row of images for each of some identities.")
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--split", choices=("train", "query", "gallery"), default="gallery")
    parser.add_argument("--identities", type=int, default=6)
    parser.add_argument("--images", type=int, default=14)
    options = parser.parse_args()
    split = getattr(load_data(options.data), options.split)
    width, height = Image.open(split.files[0]).size
    sheet = Image.new("RGB", (options.images * (width + 2), options.identities * (height + 2)), "white")
    for row, pid in enumerate(np.unique(split.pids)[: options.identities]):
        files = np.flatnonzero(split.pids == pid)
        for column, index in enumerate(files[np.linspace(0, len(files) - 1, options.images).astype(int)]):
            picture = Image.open(split.files[index]).convert("RGB").resize((width, height))
            sheet.paste(picture, (column * (width + 2), row * (height + 2)))
    sheet.save(options.out)


if __name__ == "__main__":
    main()
