#!/usr/bin/env python3
"""Compare weights on what a recipe is measured on: ``measure_compact.py RECIPE FILE…``.

Prints the mean PSNR in dB on the held-out photos, as degraded and as each file restores them:
whether new weights are better than those before, and whether they leave sharp photos alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from degradations.shake import read_responses
from patches import split_photos, validation_pairs
from recipes import RECIPES
from torch import nn
from train_compact import mean_psnr

from restormer_cli.weights.checkpoint import build_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="weights")
    parser.add_argument("--photos", type=Path, required=True, help="folder of clean photos")
    parser.add_argument("--responses", type=Path, metavar="DIR", help="measured camera responses")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="threads that degrade")
    arguments = parser.parse_args()

    recipe, device = RECIPES[arguments.recipe], torch.device(arguments.device)
    if arguments.responses:
        known, held_out = (read_responses(arguments.responses, held_out=h) for h in (False, True))
        recipe = recipe.with_responses(known, held_out)
    _, photos = split_photos(arguments.photos)
    pairs = validation_pairs(photos, recipe, arguments.workers)
    print(f"| weights | {' | '.join(recipe.validate)} |")
    print(f"|---|{'---|' * len(recipe.validate)}", flush=True)
    nothing = nn.Identity()  # gives back what it gets
    views = next(iter(pairs.values()))[0][0].shape[1]
    networks = [("as degraded", nothing)] if views <= 3 else []
    for path in arguments.files:
        networks.append((path.name, build_network(path).to(device)))
    for name, network in networks:
        figures = [mean_psnr(network, some, device) for some in pairs.values()]
        print(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |", flush=True)


if __name__ == "__main__":
    main()
